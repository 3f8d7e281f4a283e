"""A finished run's predictions-test.jsonl, as arrays: what reports and comparisons are made from without a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError

Array = NDArray[Any]
PREDICTIONS = "predictions-test.jsonl"


@dataclass(frozen=True)
class Predictions:
    """N samples, K labels."""

    ids: list[str]
    truth: Array
    """(N,) class numbers or intensities."""
    prediction: Array
    """(N,) likewise."""
    values: Array
    """(K,) class numbers or intensities of the labels; empty where no distribution was written."""
    distribution: Array
    """(N, K) probabilities of the labels."""


def read_predictions(folder: Path, spec: DatasetSpec) -> Predictions:
    """Read a run's test predictions.

    Args:
        folder: The seed's folder.
        spec: Its data set; emotions are turned into their numbers.

    Raises:
        MsekitError: The file is missing or damaged.
    """
    file = folder / PREDICTIONS
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        number = {label: place for place, label in enumerate(spec.labels or ())}
        truth, prediction = (
            np.array([number[line[key]] if number else float(line[key]) for line in lines])
            for key in ("truth", "prediction")
        )
        names = list(lines[0]["scores"])
        values = np.array([number[name] if number else float(name) for name in names])
        distribution = np.array([[line["scores"][name] for name in names] for line in lines])
        return Predictions([str(line["id"]) for line in lines], truth, prediction, values, distribution)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise MsekitError(f"the predictions are damaged or missing: {error!r}", where=file) from error
