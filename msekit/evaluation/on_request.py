"""Metrics that a description asks for by name, beside those that every set of its kind has.

Acc-3 and Acc-5 as MMSA (Mao et al. 2022) counts them: on a scale of [-3, 3] clipped and rounded, for SIMS between the
bounds ±0.1 and ±0.7. CCC: Lin 1989. Micro-F1 without a class: EmoryNLP and IEMOCAP papers leave `neutral` out so.

N: samples. C: classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIMS_BOUNDS = {3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}
"""Classes → what parts them; a bound belongs to the class below."""


def accuracy_of(classes: int, answers: Any, tolerance: float) -> float | None:
    """Accuracy over 3 or 5 classes of intensities.

    Args:
        classes: 3 or 5.
        answers: `Intensities`; `strict` ones are SIMS'.
        tolerance: Label units by which a stored label may be off a bound.
    """
    if not answers.truth.size:
        return None
    if answers.strict:
        bounds = np.array(SIMS_BOUNDS[classes]) + tolerance
        true, predicted = (np.searchsorted(bounds, values) for values in (answers.truth, answers.prediction))
    else:
        most = classes // 2
        true, predicted = (np.round(values.clip(-most, most)) for values in (answers.truth, answers.prediction))
    return float(np.mean(true == predicted))


def mean_squared_error(answers: Any) -> float | None:
    """Mean squared distance of intensities."""
    return float(np.mean((answers.truth - answers.prediction) ** 2)) if answers.truth.size else None


def concordance(answers: Any) -> float | None:
    """Lin's concordance correlation coefficient, with variances over N; None where neither side varies nor differs."""
    truth, prediction = answers.truth, answers.prediction
    if truth.size < 2:
        return None
    covariance = float(np.mean((truth - truth.mean()) * (prediction - prediction.mean())))
    spread = float(truth.var() + prediction.var() + (truth.mean() - prediction.mean()) ** 2)
    return 2 * covariance / spread if spread > 0 else None


def micro_f1_without(answers: Any, left_out: str) -> float | None:
    """F1 over all classes but one taken together: its true samples and its predictions do not count."""
    chosen = np.array([label != left_out for label in answers.labels])
    correct, support, _ = answers.by_class
    either = support + np.bincount(answers.prediction, minlength=len(chosen))
    total = int(either[chosen].sum())
    return float(2 * correct[chosen].sum() / total) if total else None


def f1_of(answers: Any, label: str) -> float | None:
    """F1 of one class."""
    value: float | None = answers.per_class_f1[label]
    return value


def per_class_recall(answers: Any) -> dict[str, float | None]:
    """Class name → recall; None for a class without true samples."""
    correct, support, _ = answers.by_class
    return _by_label(answers.labels, correct, support)


def per_class_precision(answers: Any) -> dict[str, float | None]:
    """Class name → precision; None for a class that is never predicted."""
    correct, _, _ = answers.by_class
    return _by_label(answers.labels, correct, np.bincount(answers.prediction, minlength=len(answers.labels)))


def _by_label(labels: Any, counts: Array, totals: Array) -> dict[str, float | None]:
    pairs = zip(labels, counts, totals, strict=True)
    return {label: float(count / total) if total else None for label, count, total in pairs}
