"""`predictions-test.jsonl`: a line per test sample, and the file as arrays. No torch.

    {"id": "dia3_utt4", "truth": "joy", "prediction": "neutral", "scores": {"neutral": 0.61, "joy": 0.39}}

`predict` writes the same lines without the truth. Reports and comparisons are made from the arrays, without a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError
from msekit.runs.files import PREDICTIONS, read_lines, write_lines
from msekit.words import reason

Array = NDArray[Any]
Answer = str | float
"""A label's name, or an intensity."""


@dataclass(frozen=True)
class Predictions:
    """N samples that have a label, K labels."""

    ids: list[str]
    truth: Array
    """(N,) class numbers or intensities."""
    prediction: Array
    """(N,) likewise."""
    values: Array
    """(K,) class numbers or intensities of the labels; empty where no distribution was written."""
    distribution: Array
    """(N, K) probabilities of the labels."""


def prediction_line(
    id: str, prediction: Answer, scores: Mapping[str, float], truth: Answer | None = None
) -> dict[str, Any]:
    """One sample's line; the scores are rounded to 8 decimals.

    Args:
        id: Of the sample.
        prediction: The answer.
        scores: Label → probability; empty where the model has no distribution.
        truth: None where it is not known: the line then has no such key.
    """
    rounded = {label: round(float(share), 8) for label, share in scores.items()}
    answer = {} if truth is None else {"truth": truth}
    return {"id": id, **answer, "prediction": prediction, "scores": rounded}


def write_predictions(folder: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a run's test predictions, a `prediction_line` per sample."""
    write_lines(folder / PREDICTIONS, list(lines))


def read_predictions(folder: Path, spec: DatasetSpec) -> Predictions:
    """Read a run's predictions of the test samples that have a label.

    Args:
        folder: The seed's folder.
        spec: Its data set; emotions are turned into their numbers.

    Raises:
        MsekitError: The file is missing or damaged.
    """
    file = folder / PREDICTIONS
    try:
        written = read_lines(file)
        lines = [line for line in written if "truth" in line]
        number = {label: place for place, label in enumerate(spec.labels or ())}
        truth, prediction = (
            np.array([number[line[key]] if number else float(line[key]) for line in lines], int if number else float)
            for key in ("truth", "prediction")
        )
        names = list(written[0]["scores"])
        values = np.array([number[name] if number else float(name) for name in names])
        shares = [[line["scores"][name] for name in names] for line in lines]
        distribution = np.array(shares).reshape(len(lines), len(names))
        return Predictions([str(line["id"]) for line in lines], truth, prediction, values, distribution)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise MsekitError(f"the predictions are damaged or missing: {reason(error)}", where=file) from error
