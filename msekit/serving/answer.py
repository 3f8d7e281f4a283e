"""An answer as the endpoint says it and as the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msekit.inference.prediction import Prediction
from msekit.runs.predictions import in_words

_MOST_ROWS = 13


@dataclass(frozen=True)
class Answer:
    """A sample's prediction, and its predictions with modalities withheld."""

    plug_in: str
    full: Prediction
    text: str
    """The text that was read: the user's, or that of the picked sample."""
    without: dict[str, Prediction]
    """`audio`, `vision` or `audio and vision` → prediction; only for modalities that the sample has."""

    def record(self) -> dict[str, Any]:
        """The answer as JSON."""
        withheld = {"without": {name: _record(prediction) for name, prediction in self.without.items()}}
        seconds = {"preparation": self.full.timing.preparation, "model": self.full.timing.model}
        return {"plug_in": self.plug_in, **_record(self.full), **(withheld if self.without else {}), "seconds": seconds}


def _record(prediction: Prediction) -> dict[str, Any]:
    return {key: value for key, value in prediction.record().items() if key != "id"} | {"notes": prediction.notes}


def targets_of(answer: Answer | None) -> list[dict[str, Any]]:
    """What the page shows of every target: its name, heading and answer of each column, and the columns' rows."""
    if answer is None:
        return []
    columns = {"all that was given": answer.full}
    columns |= {f"without {name}": prediction for name, prediction in answer.without.items()}
    parts = {title: prediction.by_target() for title, prediction in columns.items()}
    return [
        {
            "name": target,
            "columns": [(title, in_words(by_target[place][1])) for title, by_target in parts.items()],
            "rows": _rows([by_target[place][2] for by_target in parts.values()], isinstance(said, list)),
        }
        for place, (target, said, _) in enumerate(answer.full.by_target())
    ]


def _rows(scores: Sequence[Mapping[str, float]], apart: bool) -> list[tuple[str, list[float]]]:
    """Label → its probability in every column; a fine grid of intensities is summed into a dozen ranges.

    Labels of which any number hold are `apart`: their probabilities are not to be summed.
    """
    labels = list(scores[0])
    size = 1 if apart else math.ceil(len(labels) / _MOST_ROWS)
    groups = [labels[start : start + size] for start in range(0, len(labels), size)]
    return [
        (
            group[0] if len(group) == 1 else f"{group[0]} … {group[-1]}",
            [sum(column[key] for key in group) for column in scores],
        )
        for group in groups
    ]
