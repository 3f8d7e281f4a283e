"""A scheduler's signal, heeded by all processes of a run at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msekit.distributed.accelerator import StopSignals
from msekit.errors import StoppedError
from msekit.gpu import OnItsWay, sent
from msekit.training.build import Parts


class Asking:
    """Asks, again and again, whether one of a run's processes was asked to stop; all of them ask at once.

    A process that is alone knows. Of several each hears what was the answer the last time, so that nobody waits.

    Args:
        accelerator: This process's part in the run.
        device: Where its processes talk.
        signals: What this process was asked.
    """

    def __init__(self, accelerator: Any, device: torch.device, signals: StopSignals) -> None:
        self._accelerator, self._device, self._signals = accelerator, device, signals
        self._asked: OnItsWay | None = None

    def __call__(self) -> bool:
        if self._accelerator.num_processes == 1:
            return self._signals.received
        before, self._asked = self._asked, OnItsWay(_share(self._accelerator, self._device, self._signals))
        return before is not None and bool(before.arrived() > 0)


def _share(accelerator: Any, device: torch.device, signals: StopSignals) -> Tensor:
    """Share of the processes that were asked to stop (scalar); all of them must call it."""
    return accelerator.reduce(sent(torch.tensor(float(signals.received)), device), "mean")


def heed_signals(accelerator: Any, parts: Parts, signals: StopSignals) -> None:
    """Stop where a signal asks to, before there is anything to save."""
    several = accelerator.num_processes > 1
    if (_share(accelerator, parts.backbone.device, signals).item() > 0) if several else signals.received:
        raise StoppedError(
            "stopped by a signal while the opinion was trained alone, of which nothing is saved",
            fix="Begin again with the same command and --resume.",
        )
