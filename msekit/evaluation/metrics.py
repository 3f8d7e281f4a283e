"""METRICS: what each metric is, which data sets have it, and how people read it. Adding one is one entry here.

Definitions: the paper's section "Metrics"; where it is silent, the usual ones of the field's benchmarks:
Acc-7 and the non-zero Acc-2 of CMU-MOSEI, the non-positive/positive Acc-2 and the weak subset of CH-SIMS v2
(Liu et al. 2022), weighted F1 of MELD (Poria et al. 2018). A metric that the samples leave undefined is None,
never NaN; samples without a label, whose truth is NaN, count in none. Everything is computed from counts and sums in
numpy, so that a bootstrap of it costs about a second.

N: samples. C: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msekit.errors import MsekitError, nearest

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec, MetricFamily

Array = NDArray[Any]
MetricFn = Callable[[Array, Array], dict[str, Any]]
"""`metric_fn(truth [N], prediction [N])` → metric name → value, None, or a table of values (`per_class_f1`)."""

WEAK_LIMIT = 0.4
"""Intensities in [-0.4, 0.4] are the weakly emotional ones of SIMS-V2 (the paper's "Metrics")."""
TOLERANCE = 1e-6
"""Label units. One-decimal labels stored as float32 are off by up to 3e-8 (0.4 reads 0.4000000059)."""
NEARLY_CONSTANT = 1e-12
"""Deviations from the mean below this share of the mean are rounding, not variation."""


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


@dataclass(frozen=True)
class Metric:
    """One metric."""

    compute: Callable[[Any], Any]
    """From `Intensities` or `Emotions`, as `families` says."""
    families: tuple[str, ...]
    """`MetricFamily` names (intensities), or `erc`."""
    higher_is_better: bool = True
    percent: bool = True
    """A fraction, which people read in percent; otherwise it has a unit of its own (`mae`: label units)."""


_MSA, _ERC = ("general", "mosi", "sims"), ("erc",)
METRICS: dict[str, Metric] = {
    "acc2": Metric(lambda answers: answers.sign[0], _MSA),
    "f1": Metric(lambda answers: answers.sign[1], _MSA),
    "acc2_nonzero": Metric(lambda answers: answers.clear_sign[0], ("mosi",)),
    "f1_nonzero": Metric(lambda answers: answers.clear_sign[1], ("mosi",)),
    "acc7": Metric(lambda answers: _acc7(answers.truth, answers.prediction), ("mosi",)),
    "acc2_weak": Metric(
        lambda answers: answers.sign_of(np.abs(answers.truth) <= WEAK_LIMIT + TOLERANCE, strict=True)[0], ("sims",)
    ),
    "mae": Metric(
        lambda answers: _mean(np.abs(answers.truth - answers.prediction)), _MSA, higher_is_better=False, percent=False
    ),
    "corr": Metric(lambda answers: _pearson(answers.truth, answers.prediction), _MSA, percent=False),
    "acc": Metric(lambda answers: _mean(answers.truth == answers.prediction), _ERC),
    "wf1": Metric(lambda answers: answers.weighted_f1, _ERC),
    "macro_f1": Metric(lambda answers: answers.macro_f1, _ERC),
    "uar": Metric(lambda answers: answers.average_recall, _ERC),
    "per_class_f1": Metric(lambda answers: answers.per_class_f1, _ERC),
}
"""In the order of a report."""


def msa_metrics(truth: Array, prediction: Array, family: MetricFamily) -> dict[str, float | None]:
    """The metrics of intensity regression.

    `general`: `acc2` and `f1` tell non-negative (>= 0) from negative; `mae`, and Pearson's `corr`.
    `mosi` adds `acc2_nonzero` and `f1_nonzero`, which tell positive (> 0) from the rest on the samples whose truth is
    not 0, and `acc7`, which clips both to [-3, 3], rounds with `numpy.round` (halves to even) and asks for equality.
    `sims` clips both to [-1, 1] first; `acc2` and `f1` tell positive (> 0) from non-positive; `acc2_weak` is `acc2`
    on the samples whose truth lies in [-0.4, 0.4]. Every F1 is weighted.

    Args:
        truth: True intensities [N].
        prediction: Predicted intensities [N].
        family: The data set's.

    Returns:
        Metric name → value; None for `corr` of fewer than two samples or of a constant, and for a metric whose
        subset is empty.
    """
    truth, prediction = _pair(truth, prediction, np.float64)
    if family == "sims":
        truth, prediction = truth.clip(-1.0, 1.0), prediction.clip(-1.0, 1.0)
    return _computed(Intensities(truth, prediction, strict=family == "sims"), family)


def erc_metrics(truth: Array, prediction: Array, labels: Sequence[str]) -> dict[str, Any]:
    """The metrics of emotion classification: `acc`, `wf1`, `macro_f1`, `uar` (None without samples), and
    `per_class_f1`.

    A class's F1 is 2·TP / (its true samples + its predicted samples).

    Args:
        truth: True class numbers [N], each below `len(labels)`.
        prediction: Predicted class numbers [N].
        labels: The C class names, in the order of their numbers.
    """
    return _computed(Emotions(*_pair(truth, prediction, np.int64), labels), "erc")


def _computed(answers: Intensities | Emotions, family: str) -> dict[str, Any]:
    """Every metric of a family."""
    return {name: metric.compute(answers) for name, metric in METRICS.items() if family in metric.families}


def metrics_of(spec: DatasetSpec) -> MetricFn:
    """The metric function of a data set; its family or labels filled in.

    Args:
        spec: The data set. ERC arrays hold class numbers in the order of `spec.labels`, MSA arrays intensities.
    """
    if spec.labels is None:
        return partial(msa_metrics, family=spec.metric_family)
    return partial(erc_metrics, labels=spec.labels)


def bootstrap(
    truth: Array, prediction: Array, metric_fn: MetricFn, repeats: int = 1000, seed: int = 0
) -> dict[str, list[float] | None]:
    """95 % percentile intervals of every scalar metric, by resampling the samples with replacement.

    It says how far the metric would move on another draw of test samples; it knows nothing of the spread over
    training seeds.

    Args:
        truth: True values [N].
        prediction: Predicted values [N].
        metric_fn: What to compute; `functools.partial(msa_metrics, family="mosi")` for instance.
        repeats: Resamples.
        seed: Seed of the resampling.

    Returns:
        Metric name → [2.5th percentile, 97.5th percentile] over the resamples in which it is defined; None
        where it is defined in none. Tables (`per_class_f1`) are left out.
    """
    truth, prediction = labelled(truth, prediction)
    names = [name for name, value in metric_fn(truth, prediction).items() if not isinstance(value, dict)]
    rng = np.random.default_rng(seed)
    kept: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats if truth.size else 0):
        chosen = rng.integers(0, truth.size, truth.size)
        replicate = metric_fn(truth[chosen], prediction[chosen])
        for name in names:
            if replicate[name] is not None:
                kept[name].append(replicate[name])
    return {name: np.percentile(values, [2.5, 97.5]).tolist() if values else None for name, values in kept.items()}


def collapsed_to(predictions: Iterable[Hashable]) -> Any | None:
    """The one value that all predictions share, or None when they differ.

    A model that always answers the same looks like a plausible accuracy (48.12 % on MELD is "always neutral").

    Args:
        predictions: Labels or intensities; fewer than two of them cannot collapse.

    Returns:
        The shared value, as it came.
    """
    values = list(predictions)
    return values[0] if len(values) > 1 and len(set(values)) == 1 else None


def labelled(truth: Array, *others: Array) -> tuple[Array, ...]:
    """The truths [N] that are known, and what else is given of those samples; an unknown one is NaN."""
    arrays = [np.asarray(values) for values in (truth, *others)]
    assert arrays[0].ndim == 1, arrays[0].shape
    assert all(len(values) == len(arrays[0]) for values in arrays), [values.shape for values in arrays]
    known = ~np.isnan(arrays[0].astype(np.float64))
    return tuple(arrays if known.all() else (values[known] for values in arrays))


def metric_named(name: str) -> Metric:
    """The metric of a name.

    Raises:
        MsekitError: There is none.
    """
    if name not in METRICS:
        raise MsekitError(f"unknown metric '{name}'", fix=nearest(name, METRICS))
    return METRICS[name]


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of this metric is the better one."""
    return metric_named(metric).higher_is_better


def _pair(truth: Array, prediction: Array, dtype: type) -> tuple[Array, Array]:
    """Both as one-dimensional arrays of one type, of the samples that have a label."""
    truth, prediction = labelled(truth, prediction)
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    truth, prediction = truth.astype(dtype), prediction.astype(dtype)
    assert bool(np.isfinite(truth).all()), "non-finite truth"
    assert bool(np.isfinite(prediction).all()), "non-finite prediction"
    return truth, prediction


def _acc7(truth: Array, prediction: Array) -> float | None:
    """Accuracy over the seven whole numbers of [-3, 3], to which [N] and [N] are clipped and rounded."""
    return _mean(np.round(truth.clip(-3.0, 3.0)) == np.round(prediction.clip(-3.0, 3.0)))


def _mean(values: Array) -> float | None:
    """The mean of [N] numbers or truth values; None of nothing."""
    return float(values.mean()) if values.size else None


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


def _pearson(truth: Array, prediction: Array) -> float | None:
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
