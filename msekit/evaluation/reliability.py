"""How far a model's probabilities can be believed: temperature, expected calibration error, reliability.

A temperature T turns probabilities p into p^(1/T), normalised; it is fitted on validation scores alone, by the
likelihood of their true labels (Guo et al. 2017). What is checked is one answer per sample: the class for emotions,
and for intensities the two-way answer that Acc-2 asks for.

N: samples. K: labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.catalogue import DatasetSpec
from msekit.errors import needs_extra
from msekit.evaluation.metrics import labelled

Array = NDArray[Any]
BINS = 10
"""Equal-width bins of confidence."""
TEMPERATURES = (0.05, 20.0)
"""Range that is searched."""


@dataclass(frozen=True)
class Bin:
    """The samples whose confidence lies in (low, high]."""

    low: float
    high: float
    samples: int
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share of them that is right."""


def tempered(log_NK: Array, temperature: float) -> Array:
    """Probabilities p^(1/T), normalised over the labels, from log-probabilities. (N, K) → (N, K)."""
    scaled_NK = log_NK.astype(np.float64) / temperature
    scaled_NK -= scaled_NK.max(axis=1, keepdims=True)
    weights_NK = np.exp(scaled_NK)
    return weights_NK / weights_NK.sum(axis=1, keepdims=True)


def needs_scipy() -> None:
    """Raise where it is absent, before anything is scored."""
    if find_spec("scipy") is None:
        raise needs_extra("fitting a temperature needs scipy", "stats")


def fit_temperature(log_NK: Array, truth_N: Array) -> float:
    """The temperature under which the true labels are likeliest.

    Args:
        log_NK: Log-probabilities of the labels.
        truth_N: Position of each sample's true label.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        shares_N = tempered(log_NK, float(np.exp(log_temperature)))[np.arange(len(truth_N)), truth_N]
        return float(-np.log(shares_N.clip(min=1e-300)).mean())

    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def answers(distribution_NK: Array, values_K: Array, truth_N: Array, spec: DatasetSpec) -> tuple[Array, Array]:
    """Each sample's confidence in the answer that is checked, and whether it is right.

    Args:
        distribution_NK: Probabilities of the labels.
        values_K: Class numbers or intensities of the labels.
        truth_N: True class numbers or intensities.
        spec: The data set. Intensities: positive is > 0 for SIMS's metrics, >= 0 otherwise, as in Acc-2.
    """
    truth_N, distribution_NK = labelled(truth_N, distribution_NK)
    if spec.range is None:
        return distribution_NK.max(axis=1), values_K[distribution_NK.argmax(axis=1)] == truth_N
    above = np.greater if spec.metric_family == "sims" else np.greater_equal
    positive_N = distribution_NK[:, above(values_K, 0)].sum(axis=1)
    return np.maximum(positive_N, 1 - positive_N), (positive_N >= 0.5) == above(truth_N, 0)


def reliability(confidence_N: Array, right_N: Array, bins: int = BINS) -> list[Bin]:
    """Confidence against accuracy, by equal-width bins of confidence; empty bins are left out."""
    edges = np.linspace(0, 1, bins + 1)
    place_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    return [
        Bin(
            float(edges[number]),
            float(edges[number + 1]),
            int(inside.sum()),
            float(confidence_N[inside].mean()),
            float(right_N[inside].mean()),
        )
        for number in range(bins)
        if (inside := place_N == number).any()
    ]


def calibration_error(bins: list[Bin]) -> float | None:
    """ECE: the mean distance between confidence and accuracy over the bins, by their samples (Naeini et al. 2015); None
    of nothing."""
    total = sum(group.samples for group in bins)
    return sum(group.samples * abs(group.confidence - group.accuracy) for group in bins) / total if bins else None


def describe_calibration(distribution_NK: Array, values_K: Array, truth_N: Array, spec: DatasetSpec) -> dict[str, Any]:
    """`{"ece", "bins"}` of a distribution."""
    bins = reliability(*answers(distribution_NK, values_K, truth_N, spec))
    return {"ece": calibration_error(bins), "bins": [asdict(group) for group in bins]}
