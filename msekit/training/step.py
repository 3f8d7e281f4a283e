"""Step: what an optimiser step was. Of all that a step computes, this alone is read back from the device, once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from msekit.gpu import sent


class Step(NamedTuple):
    """What an optimiser step was; the processes agree on all of it."""

    loss: float
    """The mean over the global batch's samples."""
    norm: float
    """Of its gradient, before clipping."""
    rate: float
    """Learning rate."""
    save_now: bool
    """Whether it is time to save the state."""
    stop_now: bool
    """Whether a signal asks to stop."""


class Launched(NamedTuple):
    """A step that the device may still be computing."""

    loss: Tensor
    """This process's share of the mean over the global batch's samples, times the number of processes (scalar)."""
    norm: Tensor
    """Of the gradient (scalar)."""
    rate: float
    """Learning rate."""
    save_now: bool
    """Whether it is time to save the state, by this process's clock."""
    stop_now: bool
    """Whether this process was asked to stop."""


def read_steps(accelerator: Any, launched: list[Launched]) -> list[Step]:
    """Wait for a step of one or several runs: the one place where training waits for the device.

    Args:
        accelerator: This process's part in the run.
        launched: A step of each run; all that they compute has been given to the device.
    """
    device = launched[0].loss.device
    figures_R2 = torch.stack([figure.to(device) for each in launched for figure in (each.loss, each.norm)]).view(-1, 2)
    if accelerator.num_processes == 1:  # what this process knows itself need not go to the device and back
        pairs = zip(figures_R2.tolist(), launched, strict=True)
        return [Step(loss, norm, each.rate, each.save_now, each.stop_now) for (loss, norm), each in pairs]
    said_R2 = torch.tensor([[each.save_now, each.stop_now] for each in launched], dtype=figures_R2.dtype)
    shared_R4 = accelerator.reduce(torch.cat([figures_R2, sent(said_R2, device)], dim=1), "mean")
    return [
        Step(loss, norm, each.rate, due > 0, asked > 0)
        for (loss, norm, due, asked), each in zip(shared_R4.tolist(), launched, strict=True)
    ]
