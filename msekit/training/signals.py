"""A scheduler's signal, heeded by all processes of a run at once."""

from __future__ import annotations

from typing import Any

import torch

from msekit.distributed.accelerator import StopSignals
from msekit.errors import StoppedError


def any_signal(accelerator: Any, signals: StopSignals) -> bool:
    """Whether one of the processes was asked to stop; all of them ask at once."""
    signalled = torch.tensor(float(signals.received), device=accelerator.device)
    return bool(accelerator.reduce(signalled, "mean").item() > 0)


def heed_signals(accelerator: Any, signals: StopSignals) -> None:
    """Stop where a signal asks to, before there is a state to save."""
    if any_signal(accelerator, signals):
        raise StoppedError(
            "stopped by a signal before training with the LLM began; hidden states that were read are kept",
            fix="Begin again with the same command and --resume.",
        )
