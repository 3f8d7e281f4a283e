"""A scheduler's signal, or a callback that failed, heeded by all processes of a run at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from msekit.distributed.accelerator import StopSignals
from msekit.errors import CallbackError, StoppedError
from msekit.training.build import Parts
from msekit.training.checkpoint import Progress


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


def stopped(progress: Progress, signals: StopSignals, folder: Path) -> StoppedError:
    """How a run ends that was asked to, when its state has been saved."""
    after = f"after epoch {progress.epoch}, batch {progress.batch}; the state is saved"
    if signals.failure is None:
        return StoppedError(
            f"stopped by a signal {after}", where=folder, fix="Continue with the same command and --resume."
        )
    return callback_failed(signals, f", which stopped the run {after}", folder)


def callback_failed(signals: StopSignals, then: str, folder: Path) -> CallbackError:
    """What to say of a callback that raised, and of what came of the run."""
    assert signals.failure is not None
    who, cause = signals.failure
    what = f"{who} raised {type(cause).__name__}: {cause}{then}"
    error = CallbackError(what, where=folder, fix="Mend it; the same command with --resume goes on.")
    error.__cause__ = cause
    return error
