"""Is what is measured right too: losses, gradients and scores of each side beside the procedure's, same weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.procedure import Procedure
from msekit.adapters.interface import Adapter
from msekit.data.batches.batch import Batch
from msekit.model.mse_model import losses_of
from msekit.training.build import Parts

Outcome = tuple[float, float]
"""Mean loss of some samples, and the norm of its gradient in the adapter."""


def procedure_outcome(parts: Parts, indices: list[int]) -> Outcome:
    """The procedure's, in the parts' own precision."""
    procedure = Procedure(parts)
    return outcome(procedure.loss(procedure.batch("train", indices)), procedure.adapter)


def kit_outcome(parts: Parts, indices: list[int]) -> Outcome:
    """The kit's."""
    return outcome(parts.model(train_batch(parts, indices)) / len(indices), parts.model.adapter)


def joint_outcomes(every: Sequence[Parts], shares: Sequence[list[int]]) -> list[Outcome]:
    """Of several seeds, each on samples of its own, by one pass."""
    batches = [train_batch(parts, indices) for parts, indices in zip(every, shares, strict=True)]
    losses = losses_of([parts.model for parts in every], batches)
    torch.stack(losses).sum().backward()
    pairs = zip(every, losses, shares, strict=True)
    return [read(loss / len(mine), parts.model.adapter, 1 / len(mine)) for parts, loss, mine in pairs]


@torch.no_grad()
def scored_loss(parts: Parts, indices: list[int]) -> float:
    """Mean negative log-probability of the true labels, of all that were scored."""
    batch = train_batch(parts, indices)
    scores_BK = parts.labels.log_probabilities(parts.model.score(batch).float().cpu().numpy())
    return float(-scores_BK[np.arange(len(indices)), batch.label.cpu()].mean())


def train_batch(parts: Parts, indices: list[int]) -> Batch:
    """Training samples, where the backbone is."""
    return parts.collators["train"](indices).to(parts.backbone.device)


def outcome(loss: Tensor, adapter: Adapter) -> Outcome:
    """Of a loss whose gradients are still to be made."""
    loss.backward()
    return read(loss, adapter)


def read(loss: Tensor, adapter: Adapter, scale: float = 1.0) -> Outcome:
    """Loss and norm of the gradients, which are taken away."""
    norms = [parameter.grad.float().norm() for parameter in adapter.parameters() if parameter.grad is not None]
    adapter.zero_grad(set_to_none=True)
    return float(loss.detach()), scale * float(torch.stack(norms).norm())


def distance(ours: float, theirs: float) -> float:
    """Relative to theirs."""
    return abs(ours - theirs) / abs(theirs)
