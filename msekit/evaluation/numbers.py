"""Numbers that several metrics are made of. N: samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NEARLY_CONSTANT = 1e-12
"""Deviations from the mean below this share of the mean are rounding, not variation."""


def acc7(truth: Array, prediction: Array) -> float | None:
    """Accuracy over the seven whole numbers of [-3, 3], to which [N] and [N] are clipped and rounded."""
    return mean(np.round(truth.clip(-3.0, 3.0)) == np.round(prediction.clip(-3.0, 3.0)))


def mean(values: Array) -> float | None:
    """The mean of [N] numbers or truth values; None of nothing."""
    return float(values.mean()) if values.size else None


def pearson(truth: Array, prediction: Array) -> float | None:
    """Pearson's correlation of [N] and [N]; None for fewer than two samples or when either is constant."""
    if truth.size < 2:
        return None
    norms = []
    centred = []
    for values in (truth, prediction):
        mean = values.mean()
        deviation = values - mean
        norm = float(np.sqrt(deviation @ deviation))
        if norm <= NEARLY_CONSTANT * abs(mean):
            return None
        norms.append(norm)
        centred.append(deviation)
    return float(np.clip(centred[0] @ centred[1] / (norms[0] * norms[1]), -1.0, 1.0))
