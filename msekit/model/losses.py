"""Objective: losses beside the paper's, each off by default. They read the scores of all labels, not of the true one.

L_task, the paper's, is the cross-entropy of the true label's tokens. The others:

- `class-balanced` (erc): L_task times the inverse of the class's share of the train split, to the power of tau, scaled
  to a mean of 1 there.
- `smoothing` (erc): a share of the cross-entropy is with the uniform distribution over the labels.
- `logit-adjusted` (erc; Menon et al. 2021): cross-entropy over the labels, each score raised by tau times the log of
  the label's share of the train split.
- `expected` (msa): L_task plus a weight times the L1 distance of the label distribution's mean from the truth.
- `alone` (adapters with an opinion): L_task of the joint distribution plus a weight times that of the LLM alone and
  that of the opinion alone.
- `number_token` (msa; Zausinger et al. 2025): L_task plus a weight times the distance of the answer's digits from the
  true ones (`number_token.py`).

Shapes: B batch, E edges of the label trie, K labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from msekit.data.targets import UNANSWERED
from msekit.errors import MsekitError
from msekit.model.answers import Answers
from msekit.model.edges import Edges
from msekit.model.labels import LabelSpace
from msekit.model.number_token import NumberTokenLoss
from msekit.settings.config import LossConfig


class Objective(nn.Module):
    """The loss of a batch from its edges' log-probabilities.

    Args:
        config: The choice of losses and their weights.
        labels: The label space.
        train_labels: (N,) position of every training sample's label.
        decode: Token → its text.

    Raises:
        MsekitError: A loss means nothing for the task or the tokenizer.
    """

    paths: Tensor
    """(K, E) float32, 1 where the edge lies on the label's path."""
    values: Tensor
    """(K,) intensities of the labels."""
    shares: Tensor
    """(K,) each label's share of the training samples; a label without a sample counts as one sample."""

    def __init__(
        self, config: LossConfig, labels: LabelSpace, train_labels: np.ndarray, decode: Callable[[int], str]
    ) -> None:
        super().__init__()
        if config.balance != "none" and labels.task == "msa":
            raise MsekitError(
                f"loss.balance {config.balance} is for emotions", fix="Use loss.expected for intensities."
            )
        if config.smoothing and labels.task == "msa":
            raise MsekitError("loss.smoothing is for emotions", fix="Use loss.expected for intensities.")
        for name in ("expected", "number_token"):
            if getattr(config, name) and labels.task == "erc":
                raise MsekitError(f"loss.{name} is for intensities", fix="Use loss.balance for emotions.")
        self.config = config
        self.digits = NumberTokenLoss(labels.trie, decode) if config.number_token else None
        counts = np.bincount(train_labels, minlength=len(labels))
        present = counts > 0
        counts = counts.clip(min=1)  # no division by zero, no log of zero
        self.register_buffer("paths", torch.from_numpy(labels.trie.paths), persistent=False)
        self.register_buffer("values", torch.from_numpy(labels.values).float(), persistent=False)
        shares = counts / counts.sum()
        self.mean_weight = float((shares ** (1 - config.tau))[present].sum())
        self.register_buffer("shares", torch.from_numpy(shares).float(), persistent=False)

    def forward(self, edges: Edges, label_B: Tensor, weight_B: Tensor) -> Tensor:
        """The loss, summed over the samples that count (scalar, in nats).

        Args:
            edges: Log-probability of each edge's token.
            label_B: Position of the true label.
            weight_B: 0 for a sample that must not count.
        """
        losses_B = self.of(edges.joint, label_B)
        if self.config.alone and edges.llm is not None and edges.opinion is not None:
            losses_B = losses_B + self.config.alone * (self.of(edges.llm, label_B) + self.of(edges.opinion, label_B))
        return (losses_B * weight_B).sum()

    def of(self, edges_BE: Tensor, label_B: Tensor) -> Tensor:
        """Each sample's loss by one distribution, (B,)."""
        scores_BK = edges_BE @ self.paths.T  # log-probability of each label's whole token sequence
        if self.config.balance == "logit-adjusted":
            # the frequent labels are ahead by their shares already; prediction, without the shares, is then balanced
            raised_BK = scores_BK + self.config.tau * self.shares.log()
            losses_B = nn.functional.cross_entropy(raised_BK, label_B, reduction="none")
        else:
            losses_B = -scores_BK.gather(1, label_B[:, None]).squeeze(1)
        if self.config.smoothing:
            losses_B = (1 - self.config.smoothing) * losses_B - self.config.smoothing * scores_BK.mean(dim=1)
        if self.config.balance == "class-balanced":  # 1 / (share x classes) is 1 on average over the train split
            weights_K = self.shares**-self.config.tau
            losses_B = losses_B * weights_K[label_B] / self.mean_weight
        if self.config.expected:
            mean_B = scores_BK.softmax(dim=1) @ self.values  # in the labels' unit
            losses_B = losses_B + self.config.expected * (mean_B - self.values[label_B]).abs()
        if self.digits is not None:
            losses_B = losses_B + self.config.number_token * self.digits(edges_BE, label_B)
        return losses_B


class Objectives(nn.Module):
    """The loss of several targets: the sum of every question's own, times its target's weight.

    A question that a sample does not answer adds nothing for it. What the choice of losses says of emotions is for
    classes and labels, what it says of intensities for ranges.

    Args:
        config: The choice.
        answers: The questions.
        train_labels: (N, Q) position of every training sample's labels; -1 where it has none.
        decode: Token → its text.

    Raises:
        MsekitError: A loss means nothing for any of the targets, or for the tokenizer.
    """

    def __init__(
        self, config: LossConfig, answers: Answers, train_labels: np.ndarray, decode: Callable[[int], str]
    ) -> None:
        super().__init__()
        tasks = {one.space.task for one in answers.asked}
        for name in _OF_A_TASK["erc"] if tasks == {"msa"} else _OF_A_TASK["msa"] if tasks == {"erc"} else ():
            if getattr(config, name) != getattr(LossConfig(), name):
                kind = "classes and labels" if tasks == {"msa"} else "ranges"
                raise MsekitError(f"loss.{name} is for {kind}, and no target is one")
        for one, labels_N in zip(answers.asked, train_labels.T, strict=True):
            if not (labels_N >= 0).any():
                raise MsekitError(f"no training sample answers '{one.name}'", fix=UNANSWERED)
        self.config, self.asked = config, answers.asked
        self.each = nn.ModuleList(
            Objective(_of_task(config, one.space.task), one.space, labels_N[labels_N >= 0], decode)
            for one, labels_N in zip(answers.asked, train_labels.T, strict=True)
        )

    def forward(self, edges: Edges, label_BQ: Tensor, weight_B: Tensor) -> Tensor:
        """The loss, summed over the samples that count; see `Objective`."""
        losses_B = self.of(edges.joint, label_BQ)
        if self.config.alone and edges.llm is not None and edges.opinion is not None:
            losses_B = losses_B + self.config.alone * (self.of(edges.llm, label_BQ) + self.of(edges.opinion, label_BQ))
        return (losses_B * weight_B).sum()

    def of(self, edges_BE: Tensor, label_BQ: Tensor) -> Tensor:
        """Each sample's loss by one distribution, (B,)."""
        total_B = torch.zeros(len(edges_BE), device=edges_BE.device)
        for number, (one, objective) in enumerate(zip(self.asked, self.each, strict=True)):
            assert isinstance(objective, Objective)
            label_B = label_BQ[:, number]
            losses_B = objective.of(edges_BE[:, one.edges], label_B.clamp(min=0))
            total_B = total_B + one.weight * torch.where(label_B >= 0, losses_B, 0.0)
        return total_B


_OF_A_TASK = {"erc": ("balance", "smoothing"), "msa": ("expected", "number_token")}
"""Losses that mean something for one of the two alone."""


def _of_task(config: LossConfig, task: str) -> LossConfig:
    """The choice of losses without those for other tasks."""
    other = _OF_A_TASK["msa" if task == "erc" else "erc"]
    return config.model_copy(update={name: getattr(LossConfig(), name) for name in other})


def objective_of(
    config: LossConfig, answers: Answers, train_labels: np.ndarray, decode: Callable[[int], str]
) -> Objective | Objectives:
    """The loss of one target or of several; arguments as of either."""
    if answers.several:
        return Objectives(config, answers, train_labels, decode)
    return Objective(config, answers.space, train_labels, decode)
