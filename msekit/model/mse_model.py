"""MSEModel: the adapter in front of a frozen backbone. `forward` gives the loss of a batch, `score` its label scores.

Several models (seeds, learning rates) on one backbone join their batches into one pass: `losses_of`, `edges_of`.

Shapes: B batch, T text tokens, A answer tokens after the first, E edges of the label trie, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.sequence import Sequence, join
from msekit.data.batches.batch import Batch
from msekit.model.edges import EdgeScores
from msekit.model.labels import LabelSpace
from msekit.model.losses import Objective
from msekit.model.prompt import PromptLayout


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

    @property
    def prefix(self) -> Any:
        """Keys and values of the opening part; None where the backbone's pass takes none."""
        return self.backbone.prefix(tuple(self.layout.opening))

    def laid_out_as(self, layout: PromptLayout) -> MSEModel:
        """The same adapter, backbone and labels with another prompt or order."""
        model = MSEModel(self.backbone, self.adapter, layout, self.labels).to(self.backbone.device)
        model.objective = self.objective
        return model

    def content(self, batch: Batch, opening: bool = True) -> tuple[Tensor, Tensor]:
        """Everything before the answer, or all of that but the opening part: embeddings (B, S, d) and mask (B, S)."""
        text_BTd = self.backbone.embed(batch.text_ids)
        adapted = self.adapter(
            text_BTd.float(), batch.text_mask, batch.audio, batch.audio_lengths, batch.vision, batch.vision_lengths
        ).to(text_BTd.dtype)
        pseudo_BPd, text_BTd = (adapted[:, :0], adapted) if self.adapter.rewrites_text else (adapted, text_BTd)
        return self.layout.content(self.backbone.constant, pseudo_BPd, text_BTd, batch.text_lengths, opening)

    def laid_out(self, batch: Batch, opening: bool = True) -> Sequence:
        """The sequence that training reads, true labels included."""
        targets_BA = self.targets[batch.label]
        answers_BA = targets_BA[:, :-1]
        lengths_B = (answers_BA >= 0).sum(dim=1) - (targets_BA[:, -1] < 0).long()  # the last token is never read
        answers_BAd = self.backbone.embed(answers_BA.clamp(min=0))
        return self.layout.with_answers(*self.content(batch, opening), answers_BAd, lengths_B)

    def for_training(self, batch: Batch) -> Sequence:
        """What the backbone reads of a batch in training: the true labels, or whatever the objective scores."""
        if self.objective is not None:
            return self.for_scoring(batch)
        return self.laid_out(batch, opening=self.prefix is None)

    def for_scoring(self, batch: Batch) -> Sequence:
        """What it reads to score every label: the content and the inner nodes of the label trie."""
        content = self.content(batch, opening=self.prefix is None)
        return self.layout.with_trie(*content, self.backbone.constant, self.labels.trie)

    def logits(self, sequence: Sequence) -> Tensor:
        """Next-token logits where an answer's tokens are due, (B, A + 1, V), behind the opening part if it was read."""
        return self.backbone.logits(sequence if self.prefix is None else sequence.behind(self.prefix))

    def loss(self, logits_BAV: Tensor, batch: Batch) -> Tensor:
        """The loss, summed over the samples (scalar): L_task, or the objective's.

        The paper's L_task is the cross-entropy summed over a sample's label tokens.
        """
        if self.objective is not None:
            return self.objective(self.edges(logits_BAV), batch.label, batch.weight)
        targets_BA = self.targets[batch.label]
        # with the vocabulary innermost: five times quicker on a CPU than along another dimension, and more exact
        losses = F.cross_entropy(
            logits_BAV.float().flatten(0, 1), targets_BA.flatten(), ignore_index=-100, reduction="none"
        )
        return (losses.view(targets_BA.shape).sum(dim=1) * batch.weight).sum()

    def edges(self, logits_BMV: Tensor) -> Tensor:
        """Next-token logits at the trie's inner nodes → log-probability of every edge, (B, E) float32."""
        return EdgeScores.apply(logits_BMV.float(), self.edge_row, self.edge_token)

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch (scalar)."""
        return self.loss(self.logits(self.for_training(batch)), batch)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """Log-probability of every edge of the label trie, in one pass: (B, E) float32."""
        return edges_of([self], batch)[0]


def losses_of(models: list[MSEModel], batches: list[Batch]) -> list[Tensor]:
    """Each model's loss of its own batch, by one pass through the backbone that they share."""
    logits_BAV = models[0].logits(join([model.for_training(b) for model, b in zip(models, batches, strict=True)]))
    parts = logits_BAV.split([len(batch.label) for batch in batches])
    return [model.loss(part, batch) for model, part, batch in zip(models, parts, batches, strict=True)]


@torch.no_grad()
def edges_of(models: list[MSEModel], batch: Batch) -> list[Tensor]:
    """Each model's edges of one batch, (B, E) float32, by one pass through the backbone that they share."""
    logits_BMV = models[0].logits(join([model.for_scoring(batch) for model in models]))
    return [model.edges(part) for model, part in zip(models, logits_BMV.split(len(batch.label)), strict=True)]
