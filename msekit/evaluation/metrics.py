"""What each metric is. All are fractions in [0, 1], but `mae` (label units, lower is better) and `corr` ([-1, 1]).

Definitions: the paper's section "Metrics"; where it is silent, the usual ones of the field's benchmarks:
Acc-7 and the non-zero Acc-2 of CMU-MOSEI, the non-positive/positive Acc-2 and the weak subset of CH-SIMS v2
(Liu et al. 2022), weighted F1 of MELD (Poria et al. 2018). A metric that the samples leave undefined is None,
never NaN. Everything is computed from counts and sums in numpy, so that a bootstrap of it costs about a second.

N: samples. C: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msekit.errors import MsekitError, nearest

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec

Array = NDArray[Any]
MetricFn = Callable[[Array, Array], dict[str, Any]]
"""`metric_fn(truth [N], prediction [N])` → metric name → value, None, or a table of values (`per_class_f1`)."""

MSA_METRICS = ("acc2", "f1", "acc2_nonzero", "f1_nonzero", "acc7", "acc2_weak", "mae", "corr")
ERC_METRICS = ("acc", "wf1", "macro_f1")

WEAK_LIMIT = 0.4
"""Intensities in [-0.4, 0.4] are the weakly emotional ones of SIMS-V2 (the paper's "Metrics")."""
TOLERANCE = 1e-6
"""Label units. One-decimal labels stored as float32 are off by up to 3e-8 (0.4 reads 0.4000000059)."""
NEARLY_CONSTANT = 1e-12
"""Deviations from the mean below this share of the mean are rounding, not variation."""


def msa_metrics(truth: Array, prediction: Array, low: float, high: float) -> dict[str, float | None]:
    """The metrics of intensity regression, by the family that the label range belongs to.

    Range [-3, 3] (MOSEI, MOSI): `acc2` and `f1` tell non-negative (>= 0) from negative; `acc2_nonzero` and
    `f1_nonzero` tell positive (> 0) from the rest on the samples whose truth is not 0; `acc7` clips both to
    [-3, 3], rounds with `numpy.round` (halves to even) and asks for equality.
    Range [-1, 1] (SIMS): both are clipped to [-1, 1] first; `acc2` and `f1` tell positive (> 0) from
    non-positive; `acc2_weak` is `acc2` on the samples whose truth lies in [-0.4, 0.4].
    Any other range: `acc2` and `f1` as for [-3, 3]. All: `mae`, and Pearson's `corr`. Both F1 are weighted.

    Args:
        truth: True intensities [N].
        prediction: Predicted intensities [N].
        low: Lowest intensity of the data set.
        high: Highest intensity of the data set.

    Returns:
        Metric name → value; None for `corr` of fewer than two samples or of a constant, and for a metric whose
        subset is empty.
    """
    truth, prediction = _pair(truth, prediction, np.float64)
    if (low, high) == (-1.0, 1.0):
        truth, prediction = truth.clip(-1.0, 1.0), prediction.clip(-1.0, 1.0)
        weak = np.abs(truth) <= WEAK_LIMIT + TOLERANCE
        acc2, f1 = _binary(truth > 0, prediction > 0)
        metrics = {"acc2": acc2, "f1": f1, "acc2_weak": _binary(truth[weak] > 0, prediction[weak] > 0)[0]}
    else:
        acc2, f1 = _binary(truth >= 0, prediction >= 0)
        metrics = {"acc2": acc2, "f1": f1}
        if (low, high) == (-3.0, 3.0):
            clear = truth != 0
            metrics["acc2_nonzero"], metrics["f1_nonzero"] = _binary(truth[clear] > 0, prediction[clear] > 0)
            metrics["acc7"] = _mean(np.round(truth.clip(-3.0, 3.0)) == np.round(prediction.clip(-3.0, 3.0)))
    return {**metrics, "mae": _mean(np.abs(truth - prediction)), "corr": _pearson(truth, prediction)}


def erc_metrics(truth: Array, prediction: Array, labels: Sequence[str]) -> dict[str, Any]:
    """The metrics of emotion classification.

    A class's F1 is 2·TP / (its true samples + its predicted samples). `wf1` weighs the classes by their true
    samples. `macro_f1` is the plain mean over the classes that occur in truth or prediction (scikit-learn's own
    default), so a class of the label set that a split never shows does not pull it down.

    Args:
        truth: True class numbers [N], each below `len(labels)`.
        prediction: Predicted class numbers [N].
        labels: The C class names, in the order of their numbers.

    Returns:
        `acc`, `wf1`, `macro_f1` (None without samples), and `per_class_f1`: class name → F1, None for a class
        that is in neither truth nor prediction.
    """
    truth, prediction = _pair(truth, prediction, np.int64)
    classes = len(labels)
    correct, support, f1 = _f1_by_class(truth, prediction, classes)
    per_class = [None if np.isnan(value) else float(value) for value in f1]
    total = int(support.sum())
    return {
        "acc": float(correct.sum() / total) if total else None,
        "wf1": float(np.nansum(f1 * support) / total) if total else None,
        "macro_f1": float(np.nanmean(f1)) if total else None,
        "per_class_f1": dict(zip(labels, per_class, strict=True)),
    }


def metrics_of(spec: DatasetSpec) -> MetricFn:
    """The metric function of a data set; its range or labels filled in.

    Args:
        spec: The data set. ERC arrays hold class numbers in the order of `spec.labels`, MSA arrays intensities.
    """
    if spec.task == "msa":
        assert spec.range is not None
        return partial(msa_metrics, low=spec.range[0], high=spec.range[1])
    assert spec.labels is not None
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
        metric_fn: What to compute; `functools.partial(msa_metrics, low=-3, high=3)` for instance.
        repeats: Resamples.
        seed: Seed of the resampling.

    Returns:
        Metric name → [2.5th percentile, 97.5th percentile] over the resamples in which it is defined; None
        where it is defined in none. Tables (`per_class_f1`) are left out.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
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


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of this metric is the better one (all but `mae`).

    Raises:
        MsekitError: No metric has this name.
    """
    known = (*MSA_METRICS, *ERC_METRICS)
    if metric not in known:
        raise MsekitError(f"unknown metric '{metric}'", fix=nearest(metric, known))
    return metric != "mae"


def _pair(truth: Array, prediction: Array, dtype: type) -> tuple[Array, Array]:
    """Both as one-dimensional arrays of one type; a NaN here would be a bug upstream."""
    truth, prediction = np.asarray(truth, dtype), np.asarray(prediction, dtype)
    assert truth.ndim == 1, truth.shape
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    assert bool(np.isfinite(truth).all()), "non-finite truth"
    assert bool(np.isfinite(prediction).all()), "non-finite prediction"
    return truth, prediction


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
