"""A scheduler's signal, heeded by all processes of a run at once."""

from __future__ import annotations

from typing import Any

import torch

from msekit.distributed.accelerator import StopSignals
from msekit.errors import StoppedError
from msekit.training.build import Parts


def any_signal(accelerator: Any, parts: Parts, signals: StopSignals) -> bool:
    """Whether one of the processes was asked to stop; all of them ask at once."""
    signalled = torch.tensor(float(signals.received), device=parts.backbone.device)
    return bool(accelerator.reduce(signalled, "mean").item() > 0)


def heed_signals(accelerator: Any, parts: Parts, signals: StopSignals) -> None:
    """Stop where a signal asks to, before there is anything to save."""
    if any_signal(accelerator, parts, signals):
        raise StoppedError(
            "stopped by a signal while the opinion was trained alone, of which nothing is saved",
            fix="Begin again with the same command and --resume.",
        )
