"""MSEModel: the adapter in front of a frozen backbone. `forward` gives the loss of a batch, `score` its label scores.

Shapes: B batch, T text tokens, A answer tokens after the first, E edges of the label trie, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.backbones.load import Backbone
from msekit.data.batch import Batch
from msekit.model.labels import LabelSpace
from msekit.model.losses import Objective
from msekit.model.prompt import PromptLayout, Sequence


class MSEModel(nn.Module):
    """Adapter + frozen backbone.

    Args:
        backbone: The frozen LLM. It is not registered as a submodule: nothing here trains, saves or moves it.
        adapter: What trains.
        layout: Lays out the sequence.
        labels: The label space.
    """

    targets: Tensor
    """(K, A) every label's tokens, padded with -100."""
    edge_row: Tensor
    """(E,) see Trie."""
    edge_token: Tensor
    """(E,) see Trie."""

    objective: Objective | None
    """The loss, where it is not the paper's."""

    def __init__(self, backbone: Backbone, adapter: Adapter, layout: PromptLayout, labels: LabelSpace) -> None:
        super().__init__()
        self.objective = None
        self.adapter = adapter
        self._frozen = (backbone,)  # a tuple hides the module from nn.Module's registry
        self.layout, self.labels = layout, labels
        longest = max(len(tokens) for tokens in labels.tokens)
        targets_KA = torch.full((len(labels), longest), -100)
        for row, tokens in enumerate(labels.tokens):
            targets_KA[row, : len(tokens)] = torch.tensor(tokens)
        self.register_buffer("targets", targets_KA, persistent=False)
        self.register_buffer("edge_row", torch.from_numpy(labels.trie.edge_row), persistent=False)
        self.register_buffer("edge_token", torch.from_numpy(labels.trie.token), persistent=False)

    @property
    def backbone(self) -> Backbone:
        """The frozen LLM."""
        return self._frozen[0]

    def content(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Everything before the answer: embeddings (B, S, d) and mask (B, S)."""
        text_BTd = self.backbone.embed(batch.text_ids)
        adapted = self.adapter(
            text_BTd.float(), batch.text_mask, batch.audio, batch.audio_lengths, batch.vision, batch.vision_lengths
        ).to(text_BTd.dtype)
        pseudo_BPd, text_BTd = (adapted[:, :0], adapted) if self.adapter.rewrites_text else (adapted, text_BTd)
        return self.layout.content(self.backbone.embed, pseudo_BPd, text_BTd, batch.text_lengths)

    def laid_out(self, batch: Batch) -> Sequence:
        """The sequence as training reads it, true labels included."""
        targets_BA = self.targets[batch.label]
        answers_BA = targets_BA[:, :-1]
        lengths_B = (answers_BA >= 0).sum(dim=1) - (targets_BA[:, -1] < 0).long()  # the last token is never read
        return self.layout.with_answers(*self.content(batch), self.backbone.embed(answers_BA.clamp(min=0)), lengths_B)

    def forward(self, batch: Batch) -> Tensor:
        """The loss, summed over the samples (scalar): L_task, or the objective's.

        The paper's L_task is the cross-entropy summed over a sample's label tokens.
        """
        if self.objective is not None:
            return self.objective(self.edges(batch), batch.label, batch.weight)
        logits_BAV = self.backbone.logits(self.laid_out(batch))
        losses_BA = F.cross_entropy(
            logits_BAV.float().transpose(1, 2), self.targets[batch.label], ignore_index=-100, reduction="none"
        )
        return (losses_BA.sum(dim=1) * batch.weight).sum()

    def edges(self, batch: Batch) -> Tensor:
        """Log-probability of every edge of the label trie, in one pass: (B, E) float32."""
        sequence = self.layout.with_trie(*self.content(batch), self.backbone.embed, self.labels.trie)
        logits_BMV = self.backbone.logits(sequence).float()
        normaliser_BM = logits_BMV.logsumexp(dim=-1)
        return logits_BMV[:, self.edge_row, self.edge_token] - normaliser_BM[:, self.edge_row]

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """`edges` without gradients."""
        return self.edges(batch)
