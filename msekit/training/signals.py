"""A scheduler's signal, or a callback that failed, heeded by all processes of a run at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msekit.distributed.accelerator import StopSignals
from msekit.errors import CallbackError, StoppedError
from msekit.gpu import OnItsWay, sent
from msekit.runs.progress import Progress


class Asking:
    """Asks, again and again, whether one of a run's processes was asked to stop; all of them ask at once.

    A process that is alone knows. Of several each hears what was the answer the last time, so that nobody waits.

    Args:
        accelerator: This process's part in the run.
        signals: What this process was asked.
    """

    def __init__(self, accelerator: Any, signals: StopSignals) -> None:
        self._accelerator, self._signals = accelerator, signals
        self._asked: OnItsWay | None = None

    def __call__(self) -> bool:
        if self._accelerator.num_processes == 1:
            return self._signals.received
        before, self._asked = self._asked, OnItsWay(_share(self._accelerator, self._signals))
        return before is not None and bool(before.arrived() > 0)


def _share(accelerator: Any, signals: StopSignals) -> Tensor:
    """Share of the processes that were asked to stop (scalar); all of them must call it."""
    return accelerator.reduce(sent(torch.tensor(float(signals.received)), accelerator.device), "mean")


def heed_signals(accelerator: Any, signals: StopSignals) -> None:
    """Stop where a signal asks to, before there is a state to save."""
    several = accelerator.num_processes > 1
    if (_share(accelerator, signals).item() > 0) if several else signals.received:
        raise StoppedError(
            "stopped by a signal before training with the LLM began; hidden states that were read are kept",
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
