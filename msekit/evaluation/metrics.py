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
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msekit.added import Table
from msekit.data.targets import of_target
from msekit.errors import MsekitError, nearest
from msekit.evaluation.answers import Emotions, Intensities, LabelSets
from msekit.evaluation.numbers import acc7, mean, pearson
from msekit.evaluation.of_targets import mean_of_shares, together
from msekit.evaluation.on_request import (
    accuracy_of,
    concordance,
    f1_of,
    mean_squared_error,
    micro_f1_without,
    per_class_precision,
    per_class_recall,
)

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec, MetricFamily, Task
    from msekit.data.targets import Target

Array = NDArray[Any]
MetricFn = Callable[[Array, Array], dict[str, Any]]
"""`metric_fn(truth [N], prediction [N])` → metric name → value, None, or a table of values (`per_class_f1`)."""

WEAK_LIMIT = 0.4
"""Intensities in [-0.4, 0.4] are the weakly emotional ones of SIMS-V2 (the paper's "Metrics")."""
TOLERANCE = 1e-6
"""Label units. One-decimal labels stored as float32 are off by up to 3e-8 (0.4 reads 0.4000000059)."""


@dataclass(frozen=True)
class Metric:
    """One metric."""

    compute: Callable[..., Any]
    """From `Intensities`, `Emotions` or `LabelSets`, as `families` or `on_request` says."""
    families: tuple[str, ...] = ()
    """`MetricFamily` names (intensities), `erc`, `labels` (a target with labels), or `targets` (several together): data
    sets and targets that have it unless their description chooses."""
    on_request: Task | None = None
    """Data sets whose description may ask for it, beside those of `families`."""
    of_a_class: bool = False
    """Whether a description names a class with it (`f1_of:joy`), which `compute` takes too."""
    higher_is_better: bool = True
    percent: bool = True
    """A fraction, which people read in percent; otherwise it has a unit of its own (`mae`: label units)."""


_MSA, _ERC = ("general", "mosi", "sims"), ("erc",)
METRICS: Table[Metric] = Table(
    "metrics",
    Metric,
    {
        "acc2": Metric(lambda answers: answers.sign[0], _MSA),
        "f1": Metric(lambda answers: answers.sign[1], _MSA),
        "acc2_nonzero": Metric(lambda answers: answers.clear_sign[0], ("mosi",)),
        "f1_nonzero": Metric(lambda answers: answers.clear_sign[1], ("mosi",)),
        "acc7": Metric(lambda answers: acc7(answers.truth, answers.prediction), ("mosi",)),
        "acc2_weak": Metric(
            lambda answers: answers.sign_of(np.abs(answers.truth) <= WEAK_LIMIT + TOLERANCE, strict=True)[0], ("sims",)
        ),
        "mae": Metric(
            lambda answers: mean(np.abs(answers.truth - answers.prediction)),
            _MSA,
            higher_is_better=False,
            percent=False,
        ),
        "corr": Metric(lambda answers: pearson(answers.truth, answers.prediction), _MSA, percent=False),
        "acc": Metric(lambda answers: mean(answers.truth == answers.prediction), _ERC),
        "wf1": Metric(lambda answers: answers.weighted_f1, _ERC),
        "macro_f1": Metric(lambda answers: answers.macro_f1, (*_ERC, "labels")),
        "uar": Metric(lambda answers: answers.average_recall, (*_ERC, "labels")),
        "per_class_f1": Metric(lambda answers: answers.per_class_f1, (*_ERC, "labels")),
        "label_acc": Metric(lambda answers: answers.accuracy, ("labels",)),
        "micro_f1": Metric(lambda answers: answers.micro_f1, ("labels",)),
        "exact_match": Metric(lambda answers: answers.exact_match, ("labels",)),
        "mean": Metric(mean_of_shares, ("targets",)),
        "acc3": Metric(lambda answers: accuracy_of(3, answers, TOLERANCE), on_request="msa"),
        "acc5": Metric(lambda answers: accuracy_of(5, answers, TOLERANCE), on_request="msa"),
        "mse": Metric(mean_squared_error, on_request="msa", higher_is_better=False, percent=False),
        "ccc": Metric(concordance, on_request="msa", percent=False),
        "war": Metric(lambda answers: mean(answers.truth == answers.prediction), on_request="erc"),
        "micro_f1_without": Metric(micro_f1_without, on_request="erc", of_a_class=True),
        "f1_of": Metric(f1_of, on_request="erc", of_a_class=True),
        "per_class_recall": Metric(per_class_recall, on_request="erc"),
        "per_class_precision": Metric(per_class_precision, on_request="erc"),
    },
)
"""In the order of a report. `war`, the recall of the classes weighed by their true samples, is the accuracy."""


def msa_metrics(
    truth: Array, prediction: Array, family: MetricFamily, names: tuple[str, ...] = ()
) -> dict[str, float | None]:
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
        names: Metrics in place of the family's; it still decides their definitions.

    Returns:
        Metric name → value; None for `corr` of fewer than two samples or of a constant, and for a metric whose
        subset is empty.
    """
    truth, prediction = _pair(truth, prediction, np.float64)
    if family == "sims":
        truth, prediction = truth.clip(-1.0, 1.0), prediction.clip(-1.0, 1.0)
    return _computed(Intensities(truth, prediction, strict=family == "sims"), family, names)


def erc_metrics(truth: Array, prediction: Array, labels: Sequence[str], names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The metrics of emotion classification: `acc`, `wf1`, `macro_f1`, `uar` (None without samples), and
    `per_class_f1`.

    A class's F1 is 2·TP / (its true samples + its predicted samples).

    Args:
        truth: True class numbers [N], each below `len(labels)`.
        prediction: Predicted class numbers [N].
        labels: The C class names, in the order of their numbers.
        names: Metrics in place of these.
    """
    return _computed(Emotions(*_pair(truth, prediction, np.int64), labels), "erc", names)


def _computed(answers: Intensities | Emotions | LabelSets, family: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The named metrics, or every one of a family."""
    if names:
        classes = {name: [label] if (label := name.partition(":")[2]) else [] for name in names}
        values = {name: metric_named(name).compute(answers, *classes[name]) for name in names}
    else:
        values = {name: METRICS[name].compute(answers) for name in _names(family)}
    return {name: _defined(value) for name, value in values.items()}


def _defined(value: Any) -> Any:
    """A metric's value, or None for one that is no finite number."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _names(family: str) -> tuple[str, ...]:
    """The metrics that sets of a family have."""
    return tuple(name for name, metric in METRICS.items() if family in metric.families)


def metrics_of(spec: DatasetSpec) -> MetricFn:
    """The metric function of a data set; its family or labels filled in. Of several targets each one's, and their mean.

    Args:
        spec: The data set. ERC arrays hold class numbers in the order of `spec.labels`, MSA arrays intensities.

    Raises:
        MsekitError: Its description chooses a metric that there is not, or not for it.
    """
    if spec.targets:
        functions = {name: _of_target(spec, name, target) for name, target in spec.targets.items()}
        return partial(
            together, spec, functions, [name for name in METRICS.names if not METRICS[name].higher_is_better]
        )
    for name in chosen_metrics(spec):
        _refuse_unfit(name, spec)
    if spec.labels is None:
        return partial(msa_metrics, family=spec.metric_family, names=chosen_metrics(spec))
    return partial(erc_metrics, labels=spec.labels, names=chosen_metrics(spec))


def _of_target(spec: DatasetSpec, name: str, target: Target) -> MetricFn:
    """The metric function of one of several targets; of one with labels arrays are [N, L].

    Raises:
        MsekitError: Its name is a metric's, a chosen metric is none of its kind, or its key metric is not computed.
    """
    if name in METRICS:
        raise MsekitError(f"a target cannot be called '{name}', which is a metric", where=spec.name)
    if target.labels is None:
        own = of_target(spec, name)
        function, has = metrics_of(own), chosen_metrics(own) or _names("erc" if own.labels else own.metric_family)
    else:
        labels, chosen = target.labels, tuple(target.metrics or ())
        if unfit := [metric for metric in chosen if metric not in _names("labels")]:
            known = f"They are {', '.join(_names('labels'))}"
            raise MsekitError(f"'{unfit[0]}' is no metric of labels", where=f"target '{name}'", fix=known)
        has = chosen or _names("labels")
        function = lambda truth, answers: _computed(LabelSets(truth, answers, labels), "labels", chosen)  # noqa: E731
    whose, _, key = spec.key_metric.partition(":")
    if unknown := [metric for metric in (target.key_metric, key if whose == name else "") if metric not in ("", *has)]:
        raise MsekitError(
            f"target '{name}' has no metric '{unknown[0]}'", where=spec.name, fix=nearest(unknown[0], has)
        )
    return function


def chosen_metrics(spec: DatasetSpec) -> tuple[str, ...]:
    """The metrics that a description chooses by name; none where it leaves them to its family."""
    return spec.metrics if isinstance(spec.metrics, tuple) else ()


def _refuse_unfit(name: str, spec: DatasetSpec) -> None:
    metric, (_, colon, label) = metric_named(name), name.partition(":")
    where = f"metrics of '{spec.name}'"
    tasks = {family if family in ("erc", "labels", "targets") else "msa" for family in metric.families}
    if spec.task not in {metric.on_request, *tasks}:
        raise MsekitError(f"'{name}' is no metric of a data set for {spec.task}", where=where)
    if metric.of_a_class and label not in (spec.labels or ()):
        examples = ", ".join(f"{name.partition(':')[0]}:{known}" for known in spec.labels or ())
        raise MsekitError(f"'{name}' names no class", where=where, fix=f"Name one of its classes: {examples}")
    if colon and not metric.of_a_class:
        raise MsekitError(f"'{name}' takes no class", where=where, fix=f"Write {name.partition(':')[0]}.")


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
    """The truths [N] that are known, and what else is given of those samples; an unknown one is NaN. Of several targets
    truths are [N, questions], and a sample is left out that answers none."""
    arrays = [np.asarray(values) for values in (truth, *others)]
    assert arrays[0].ndim in (1, 2), arrays[0].shape
    assert all(len(values) == len(arrays[0]) for values in arrays), [values.shape for values in arrays]
    known = ~np.isnan(arrays[0].astype(np.float64))
    if known.ndim == 2:
        known = np.any(known, axis=1)
    return tuple(arrays if known.all() else (values[known] for values in arrays))


def metric_named(name: str) -> Metric:
    """The metric of a name, with or without the class that it is of.

    Raises:
        MsekitError: There is none.
    """
    first, _, rest = name.partition(":")
    base = first if first in METRICS or not rest else rest.partition(":")[0]  # `target:metric`
    if base not in METRICS:
        raise MsekitError(f"unknown metric '{name}'", fix=nearest(base, METRICS.names))
    return METRICS[base]


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of this metric is the better one."""
    return metric_named(metric).higher_is_better


def goodness(metric: str, value: float | None) -> float:
    """A metric's value as a number of which the larger is the better; one that is not defined is the worst."""
    return -np.inf if value is None else value if higher_is_better(metric) else -value


def _pair(truth: Array, prediction: Array, dtype: type) -> tuple[Array, Array]:
    """Both as one-dimensional arrays of one type, of the samples that have a label."""
    truth, prediction = labelled(truth, prediction)
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    truth, prediction = truth.astype(dtype), prediction.astype(dtype)
    assert bool(np.isfinite(truth).all()), "non-finite truth"
    assert bool(np.isfinite(prediction).all()), "non-finite prediction"
    return truth, prediction
