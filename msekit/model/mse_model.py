"""MSEModel: the adapter in front of a frozen backbone. `forward` gives the loss of a batch, `score` its label scores.

Several models (seeds, learning rates) on one backbone join their batches into one pass: `losses_of`, `edges_of`.

Shapes: B batch, T text tokens, A answer tokens after the first, E edges of the label trie, M its inner nodes, V
vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Adapter, Evidence, OpinionatedAdapter, Reading
from msekit.backbones.backbone import Backbone
from msekit.backbones.sequence import Sequence, join
from msekit.data.batches.batch import Batch
from msekit.model.answers import Answers
from msekit.model.edges import Edges, EdgeScores
from msekit.model.labels import LabelSpace
from msekit.model.product import product_of
from msekit.model.prompt import PromptLayout

if TYPE_CHECKING:
    from msekit.model.losses import Objective, Objectives


class Content(NamedTuple):
    """Everything before the answer."""

    embeddings: Tensor
    """(B, S, d)."""
    mask: Tensor
    """(B, S)."""
    opinion: Tensor | None
    """(B, K) the adapter's own log-probabilities over the labels; None where it has no opinion."""


class Laid(NamedTuple):
    """A laid-out batch, and what its adapter says by itself."""

    sequence: Sequence
    opinion: Tensor | None
    """See `Content`."""


class MSEModel(nn.Module):
    """Adapter + frozen backbone.

    Args:
        backbone: The frozen LLM. It is not registered as a submodule: nothing here trains, saves or moves it.
        adapter: What trains.
        layout: Lays out the sequence.
        labels: The label space, or those of several targets.
    """

    targets: Tensor
    """(K, A) every label's tokens, padded with -100; empty where there are several targets."""
    edge_row: Tensor
    """(E,) see Trie."""
    edge_token: Tensor
    """(E,) see Trie."""
    family: Tensor
    """(M - 1, M - 1) see Trie."""
    label_tokens: Tensor
    """Every token of the trie, once: their logits are what is read."""

    objective: Objective | Objectives | None
    """The loss, where it is not the paper's."""

    def __init__(
        self, backbone: Backbone, adapter: Adapter, layout: PromptLayout, labels: LabelSpace | Answers
    ) -> None:
        super().__init__()
        self.objective = None
        self.adapter = adapter
        self._frozen = (backbone,)  # a tuple hides the module from nn.Module's registry
        self.layout, self.answers = layout, Answers.only(labels)
        self.register_buffer("targets", _padded(self.answers), persistent=False)
        self.register_buffer("edge_row", torch.from_numpy(self.answers.edge_row), persistent=False)
        self.register_buffer("edge_token", torch.from_numpy(self.answers.edge_token), persistent=False)
        self.register_buffer("family", torch.from_numpy(self.answers.nodes.family), persistent=False)
        self.register_buffer("label_tokens", torch.from_numpy(np.unique(self.answers.edge_token)), persistent=False)
        self.product = product_of(self.answers) if isinstance(adapter, OpinionatedAdapter) else None

    @property
    def labels(self) -> LabelSpace:
        """The label space of the one target.

        Raises:
            MsekitError: There are several.
        """
        return self.answers.space

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
        model = MSEModel(self.backbone, self.adapter, layout, self.answers).to(self.backbone.device)
        model.objective = self.objective
        return model

    def opinion(self, batch: Batch) -> Tensor:
        """What an OpinionatedAdapter says of a batch without the LLM: edges of the trie, (B, E)."""
        assert self.product is not None, "the adapter has no opinion"
        return self.product.opinion(self.reading(batch).opinion)

    def opinion_loss(self, batch: Batch) -> Tensor:
        """The objective's loss by every member of the opinion alone, summed over the samples, the members' mean."""
        assert self.product is not None, "the adapter has no opinion"
        assert self.objective is not None, "an opinion is trained by an objective"
        members_BMK = self.reading(batch).members
        size, count = members_BMK.shape[:2]
        edges = self.product.opinion(members_BMK.flatten(0, 1))
        losses_BM = self.objective.of(edges, batch.label.repeat_interleave(count, dim=0)).view(size, count)
        return (losses_BM.mean(dim=1) * batch.weight).sum()

    def reading(self, batch: Batch) -> Reading:
        """What an OpinionatedAdapter makes of a batch."""
        assert isinstance(self.adapter, OpinionatedAdapter)
        assert batch.text_states is not None, "the collator was given no hidden states"
        return self.adapter.read(evidence(batch))

    def content(self, batch: Batch, opening: bool = True) -> Content:
        """Everything before the answer, or all of that but the opening part."""
        text_BTd, opinion_BK = self.backbone.embed(batch.text_ids), None
        if isinstance(self.adapter, OpinionatedAdapter):
            reading = self.reading(batch)
            adapted, opinion_BK = self.adapter.pseudo(reading), reading.opinion
        else:
            adapted = self.adapter(
                text_BTd.float(), batch.text_mask, batch.audio, batch.audio_lengths, batch.vision, batch.vision_lengths
            )
        adapted = adapted.to(text_BTd.dtype)
        pseudo_BPd, text_BTd = (adapted[:, :0], adapted) if self.adapter.rewrites_text else (adapted, text_BTd)
        constant = self.backbone.constant
        return Content(*self.layout.content(constant, pseudo_BPd, text_BTd, batch.text_lengths, opening), opinion_BK)

    def laid_out(self, batch: Batch, opening: bool = True) -> Laid:
        """The sequence that the paper's training reads, true labels included."""
        targets_BA = self.targets[batch.label]
        answers_BA = targets_BA[:, :-1]
        lengths_B = (answers_BA >= 0).sum(dim=1) - (targets_BA[:, -1] < 0).long()  # the last token is never read
        answers_BAd = self.backbone.embed(answers_BA.clamp(min=0))
        embeddings_BSd, mask_BS, opinion_BK = self.content(batch, opening)
        return Laid(self.layout.with_answers(embeddings_BSd, mask_BS, answers_BAd, lengths_B), opinion_BK)

    def for_training(self, batch: Batch) -> Laid:
        """What the backbone reads of a batch in training: the true labels, or whatever the objective scores."""
        if self.objective is not None:
            return self.for_scoring(batch)
        return self.laid_out(batch, opening=self.prefix is None)

    def for_scoring(self, batch: Batch) -> Laid:
        """What it reads to score every label: the content and the inner nodes of the label trie."""
        embeddings_BSd, mask_BS, opinion_BK = self.content(batch, opening=self.prefix is None)
        constant, nodes = self.backbone.constant, self.answers.nodes
        return Laid(self.layout.with_tree(embeddings_BSd, mask_BS, constant, nodes, self.family), opinion_BK)

    def logits(self, sequence: Sequence) -> Tensor:
        """Next-token logits where an answer's tokens are due, (B, A + 1, V), behind the opening part if it was read."""
        whole = sequence if self.prefix is None else sequence.behind(self.prefix)
        return self.backbone.logits(whole, self.label_tokens)

    def loss(self, logits_BAV: Tensor, batch: Batch, opinion_BK: Tensor | None = None) -> Tensor:
        """The loss, summed over the samples (scalar): L_task, or the objective's.

        The paper's L_task is the cross-entropy summed over a sample's label tokens.
        """
        if self.objective is not None:
            return self.objective(self.edges(logits_BAV, opinion_BK), batch.label, batch.weight)
        assert not self.answers.several, "several targets are trained by an objective"
        assert opinion_BK is None, "an adapter with an opinion is trained by an objective"
        targets_BA = self.targets[batch.label]
        # with the vocabulary innermost: five times quicker on a CPU than along another dimension, and more exact
        losses = F.cross_entropy(
            logits_BAV.float().flatten(0, 1), targets_BA.flatten(), ignore_index=-100, reduction="none"
        )
        return (losses.view(targets_BA.shape).sum(dim=1) * batch.weight).sum()

    def edges(self, logits_BMV: Tensor, opinion_BK: Tensor | None = None, llm_weight: Tensor | float = 1.0) -> Edges:
        """Next-token logits at the trie's inner nodes, and the adapter's opinion → edges.

        Training leaves the LLM's weight at 1: the fitted one may be 0, and pseudo tokens would have no gradient.
        """
        llm_BE = EdgeScores.apply(logits_BMV.float(), self.edge_row, self.edge_token)
        if self.product is None or opinion_BK is None:
            return Edges(llm_BE)
        opinion_BE = self.product.opinion(opinion_BK)
        return Edges(self.product(llm_BE, opinion_BE, llm_weight), llm_BE, opinion_BE)

    @property
    def llm_weight(self) -> Tensor | float:
        """How far the LLM is trusted beside the adapter's opinion, as fitted on validation; 1 where there is none."""
        return self.adapter.llm_weight if isinstance(self.adapter, OpinionatedAdapter) else 1.0

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch (scalar)."""
        sequence, opinion_BK = self.for_training(batch)
        return self.loss(self.logits(sequence), batch, opinion_BK)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """Log-probability of every edge of the label trie, in one pass: (B, E) float32."""
        return edges_of([self], batch)[0].joint


def _padded(answers: Answers) -> Tensor:
    """Every label's tokens, padded with -100: (K, A)."""
    labels = [] if answers.several else answers.space.tokens
    rows = [torch.tensor(tokens) for tokens in labels]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100) if rows else torch.zeros(0, 1)


def evidence(batch: Batch) -> Evidence:
    """What an OpinionatedAdapter reads of a batch."""
    return Evidence(*(getattr(batch, name) for name in Evidence._fields))


def losses_of(models: list[MSEModel], batches: list[Batch]) -> list[Tensor]:
    """Each model's loss of its own batch, by one pass through the backbone that they share."""
    laid = [model.for_training(batch) for model, batch in zip(models, batches, strict=True)]
    logits_BAV = models[0].logits(join([sequence for sequence, _ in laid]))
    parts = logits_BAV.split([len(batch.label) for batch in batches])
    return [
        model.loss(part, batch, opinion_BK)
        for model, part, batch, (_, opinion_BK) in zip(models, parts, batches, laid, strict=True)
    ]


@torch.no_grad()
def edges_of(models: list[MSEModel], batch: Batch) -> list[Edges]:
    """Each model's edges of one batch, by one pass through the backbone that they share."""
    laid = [model.for_scoring(batch) for model in models]
    parts = models[0].logits(join([sequence for sequence, _ in laid])).split(len(batch.label))
    return [
        model.edges(part, opinion_BK, model.llm_weight)
        for model, part, (_, opinion_BK) in zip(models, parts, laid, strict=True)
    ]
