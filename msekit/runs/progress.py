"""Progress: where a training run stands, of a plug-in or of a baseline; part of the state to resume from. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict


@dataclass
class Progress:
    """Where training stands: `epoch` epochs are complete, and `batch` global batches of the next one."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    epoch: int = 0
    batch: int = 0
    step: int = 0
    """Optimiser steps so far."""
    loss_sum: float = 0.0
    """Of the current epoch's samples so far."""
    samples: int = 0
    seconds: float = 0.0
    """Wall time of training steps, over all epochs."""
    cpu_seconds: float = 0.0
    """Processor time of training steps, over all threads and epochs."""
    opinion_seconds: float = 0.0
    """Wall time in which the opinion trained alone, before the first epoch."""
    trained: int = 0
    """Samples trained on, over all epochs."""
    best_epoch: int = 0
    best_value: float | None = None
    finished: bool = False
    ends: list[int] = field(default_factory=list)
    """Epochs after which the run had ended, before more were asked for."""
    skipped: int = 0
    """Steps that changed nothing: their gradient overflowed beside an LLM in fp16 (`loss_scale.py`)."""
    skipped_in_a_row: int = 0
    """The latest of them."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per complete epoch: the lines of metrics.jsonl."""

    @property
    def mean_loss(self) -> float:
        """Of the current epoch's samples so far."""
        return self.loss_sum / max(self.samples, 1)

    @property
    def speed(self) -> float:
        """Samples trained on in a second, over all epochs."""
        return self.trained / max(self.seconds, 1e-9)

    def count(self, samples: int, loss: float, seconds: float, cpu_seconds: float) -> None:
        """One more optimiser step on a global batch, with the batch's mean loss."""
        self.batch, self.step = self.batch + 1, self.step + 1
        self.loss_sum += loss * samples
        self.samples += samples
        self.trained += samples
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds

    def end_epoch(self, line: dict[str, Any]) -> None:
        """One more complete epoch, with its line of metrics.jsonl."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.samples = 0.0, 0
        self.history.append(line)
