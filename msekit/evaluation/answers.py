"""True and predicted answers of N samples, and what several metrics read of them.

N: samples. C: classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Intensities:
    """True and predicted intensities, each [N], and what several metrics read of them."""

    truth: Array
    prediction: Array
    strict: bool
    """Positive is > 0 and not >= 0."""

    @cached_property
    def sign(self) -> tuple[float | None, float | None]:
        """Accuracy and weighted F1 of the sign."""
        return self.sign_of(np.ones(self.truth.size, dtype=bool), self.strict)

    @cached_property
    def clear_sign(self) -> tuple[float | None, float | None]:
        """The same on the samples whose truth is not 0, positive being > 0."""
        return self.sign_of(self.truth != 0, strict=True)

    def sign_of(self, chosen: Array, strict: bool) -> tuple[float | None, float | None]:
        """Accuracy and weighted F1 of the sign on chosen samples, bool [N]."""
        truth, prediction = self.truth[chosen], self.prediction[chosen]
        return _binary(truth > 0, prediction > 0) if strict else _binary(truth >= 0, prediction >= 0)


@dataclass(frozen=True)
class Emotions:
    """True and predicted class numbers, each [N], and what several metrics read of them."""

    truth: Array
    prediction: Array
    labels: Sequence[str]
    """The C class names, in the order of their numbers."""

    @cached_property
    def by_class(self) -> tuple[Array, Array, Array]:
        """Correct answers, true samples and F1 of every class, each [C]; see `_f1_by_class`."""
        return _f1_by_class(self.truth, self.prediction, len(self.labels))

    @property
    def weighted_f1(self) -> float | None:
        """F1, the classes weighed by their true samples."""
        _, support, f1 = self.by_class
        return float(np.nansum(f1 * support) / self.truth.size) if self.truth.size else None

    @property
    def macro_f1(self) -> float | None:
        """The plain mean of F1 over the classes that occur in truth or prediction (scikit-learn's own default), so
        a class of the label set that a split never shows does not pull it down."""
        return float(np.nanmean(self.by_class[2])) if self.truth.size else None

    @property
    def average_recall(self) -> float | None:
        """The plain mean of the recall over the classes that occur in truth (UAR, Schuller et al. 2009)."""
        correct, support, _ = self.by_class
        occurs = support > 0
        return float(np.mean(correct[occurs] / support[occurs])) if self.truth.size else None

    @property
    def per_class_f1(self) -> dict[str, float | None]:
        """Class name → F1, None for a class that is in neither truth nor prediction."""
        values = [None if np.isnan(value) else float(value) for value in self.by_class[2]]
        return dict(zip(self.labels, values, strict=True))


def _binary(truth: Array, prediction: Array) -> tuple[float | None, float | None]:
    """Accuracy and weighted F1 of two boolean arrays [N]."""
    if not truth.size:
        return None, None
    correct, support, f1 = _f1_by_class(truth.astype(np.int64), prediction.astype(np.int64), 2)
    return float(correct.sum() / truth.size), float(np.nansum(f1 * support) / truth.size)


def _f1_by_class(truth: Array, prediction: Array, classes: int) -> tuple[Array, Array, Array]:
    """Correct answers, true samples and F1 of every class, each [C]; F1 is NaN for a class in neither array."""
    assert not truth.size or min(truth.min(), prediction.min()) >= 0, "negative class number"
    assert not truth.size or max(truth.max(), prediction.max()) < classes, "class number outside the labels"
    correct = np.bincount(truth[truth == prediction], minlength=classes)
    support = np.bincount(truth, minlength=classes)
    either = support + np.bincount(prediction, minlength=classes)
    f1 = np.divide(2.0 * correct, either, out=np.full(classes, np.nan), where=either > 0)
    return correct, support, f1


@dataclass(frozen=True)
class LabelSets:
    """True and predicted labels of N samples, of which any number hold, and what several metrics read of them."""

    truth: Array
    """[N, L] float: 1 where the label holds, 0 where not, NaN where that is not known."""
    prediction: Array
    """[N, L] float."""
    labels: Sequence[str]
    """The L labels."""

    @cached_property
    def each(self) -> list[Emotions]:
        """No and yes of every label, on the samples where it is known."""
        known_NL = ~np.isnan(self.truth)
        pairs = zip(self.truth.T, self.prediction.T, known_NL.T, strict=True)
        return [
            Emotions(truth[known].astype(np.int64), prediction[known].astype(np.int64), ("no", "yes"))
            for truth, prediction, known in pairs
        ]

    @property
    def accuracy(self) -> float | None:
        """The share of all answers, no or yes, that are right."""
        known = ~np.isnan(self.truth)
        return float(np.mean(self.truth[known] == self.prediction[known])) if known.any() else None

    @property
    def exact_match(self) -> float | None:
        """The share of the samples, of those of which every label is known, whose labels are all right."""
        whole = ~np.isnan(self.truth).any(axis=1)
        return float((self.truth[whole] == self.prediction[whole]).all(axis=1).mean()) if whole.any() else None

    @property
    def micro_f1(self) -> float | None:
        """F1 of yes over all labels together; None where no label holds in truth or prediction."""
        known = ~np.isnan(self.truth)
        truth, prediction = self.truth[known], self.prediction[known]
        either = truth.sum() + prediction.sum()
        return float(2 * (truth * prediction).sum() / either) if either else None

    @property
    def per_class_f1(self) -> dict[str, float | None]:
        """Label → F1 of yes; None for one that holds in neither truth nor prediction."""
        return {label: each.per_class_f1["yes"] for label, each in zip(self.labels, self.each, strict=True)}

    @property
    def macro_f1(self) -> float | None:
        """The plain mean of F1 over the labels that hold in truth or prediction."""
        values = [value for value in self.per_class_f1.values() if value is not None]
        return float(np.mean(values)) if values else None

    @property
    def average_recall(self) -> float | None:
        """The plain mean over the labels of the mean recall of no and yes: the weighted accuracy of MOSEI's emotions
        (Zadeh et al. 2018)."""
        values = [value for each in self.each if (value := each.average_recall) is not None]
        return float(np.mean(values)) if values else None
