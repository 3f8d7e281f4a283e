"""How a baseline's network is trained, where it is not one loss and one optimiser: what it may offer to the loop.

A network is a module made from `Sizes` whose `forward(RivalBatch)` gives (B, O). Beyond that it may have any of

    loss(batch) → a scalar                   its own loss, instead of cross-entropy or L1 of its outputs
    stages() → list[Stage]                   several passes over the data in an epoch, each with its own optimiser
    begin(epoch)                             called before an epoch, counted from 1
    after(batch)                             called behind each optimiser step of the last stage, without gradients
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from msekit.baselines.losses import task_loss
from msekit.baselines.rival_batch import RivalBatch


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    factor: float = 1.0
    """Of the baseline's learning rate."""


@dataclass(frozen=True)
class Stage:
    """One pass over the data."""

    loss: Callable[[RivalBatch], Tensor]
    groups: list[Group]
    share: float = 1.0
    """Of an epoch's batches, the first ones."""


def loss_of(network: nn.Module, batch: RivalBatch) -> Tensor:
    """A network's own loss; cross-entropy or L1 of its outputs where it has none."""
    own = getattr(network, "loss", None)
    return own(batch) if own is not None else task_loss(network(batch), batch.truth)


def stages_of(network: nn.Module) -> list[Stage]:
    """A network's own stages; one over all that trains where it names none."""
    own = getattr(network, "stages", None)
    if own is not None:
        return own()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [Stage(lambda batch: loss_of(network, batch), [Group(trained)])]
