"""Prediction: what a plug-in says of one sample, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msekit.runs.predictions import Answer, prediction_line


@dataclass(frozen=True)
class Timing:
    """Where the time of one prediction went, in seconds."""

    preparation: float
    """Reading and checking the sample."""
    model: float
    """Adapter and backbone, for its whole batch: to launch them, and to wait for a GPU's answer."""
    batch: int
    """Samples of that batch."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one sample."""

    id: str
    prediction: Answer
    """The label's name, or the intensity; of several targets a mapping from each to its own, of labels a list of those
    that hold."""
    scores: Mapping[str, Any]
    """Label → probability; they sum to 1. Of several targets a mapping from each to its own; labels need not sum."""
    estimate: str
    """Which point estimate of the distribution the prediction is."""
    timing: Timing
    notes: tuple[str, ...]
    """What was done to the sample: text cut, values replaced, a modality left out."""

    def by_target(self) -> list[tuple[str, Any, Mapping[str, float]]]:
        """Name, answer and probabilities of every target; the name is empty where there is one."""
        if not isinstance(self.prediction, dict):
            return [("", self.prediction, self.scores)]
        return [(target, answer, self.scores[target]) for target, answer in self.prediction.items()]

    def record(self) -> dict[str, Any]:
        """`{"id", "prediction", "scores"}`, as in `predictions-test.jsonl`."""
        return prediction_line(self.id, self.prediction, self.scores)
