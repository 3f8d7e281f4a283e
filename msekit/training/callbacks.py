"""What watches a run: five hooks with plain values, called in the main process alone. Nothing here changes training.

A callback that raises ends the run in good order: the state is saved at the next step, and the same command with
--resume goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msekit.settings.config import RunConfig


@dataclass(frozen=True)
class RunStarted:
    """A run that begins, or goes on after it was stopped."""

    config: RunConfig
    """The settings, nothing left open."""
    total_steps: int
    """Optimiser steps of the whole schedule."""
    steps_per_epoch: int
    step: int
    """Steps taken before; 0 for a new run."""
    history: tuple[dict[str, Any], ...]
    """The lines of `metrics.jsonl` so far."""


@dataclass(frozen=True)
class StepTaken:
    """One optimiser step."""

    step: int
    """From 1, over all epochs."""
    epoch: int
    """From 1."""
    loss: float
    """Mean over the global batch."""
    norm: float
    """Of the gradient, before clipping."""
    rate: float
    """Learning rate."""
    samples: int
    seconds: float
    """Wall time of the step; its share where several seeds train together."""
    memory_bytes: int
    """Largest so far: allocated on the GPU, or resident on a CPU."""

    @property
    def samples_per_s(self) -> float:
        """Of this step."""
        return self.samples / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EpochJudged:
    """An epoch that was trained and validated."""

    epoch: int
    """From 1."""
    step: int
    """Steps taken by its end."""
    values: dict[str, Any]
    """Its line of `metrics.jsonl`: losses, validation metrics, whether it is the best so far."""


@dataclass(frozen=True)
class StateSaved:
    """A state to go on from is on disk."""

    folder: Path
    step: int
    epoch: int
    """Complete ones."""


@dataclass(frozen=True)
class RunEnded:
    """The last thing that a run says."""

    step: int
    report: dict[str, Any] | None
    """The content of `report.json`; None where the run broke off."""
    error: BaseException | None = None
    """What it broke off with."""


class Callback:
    """What a run tells; overwrite the hooks you want. Values are read-only, exceptions end the run in good order."""

    def on_start(self, event: RunStarted) -> None:
        """Before the first step."""

    def on_step(self, event: StepTaken) -> None:
        """After every optimiser step."""

    def on_epoch(self, event: EpochJudged) -> None:
        """After every epoch's validation."""

    def on_save(self, event: StateSaved) -> None:
        """When a state has been saved."""

    def on_end(self, event: RunEnded) -> None:
        """When the report is written, or the run breaks off."""


class Failure(NamedTuple):
    """A callback that raised."""

    hook: str
    """`Probe.on_step`."""
    error: Exception


class Watchers:
    """The callbacks of one run. One that raised is not called again."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        self.failure: Failure | None = None
        """The first of them."""

    def tell(self, hook: str, event: Any) -> None:
        """Call a hook of all."""
        for callback in tuple(self.callbacks):
            try:
                getattr(callback, hook)(event)
            except Exception as error:
                self.callbacks.remove(callback)
                self.failure = self.failure or Failure(f"{type(callback).__name__}.{hook}", error)
