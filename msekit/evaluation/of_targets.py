"""The metrics of several targets: each target's own as `target:metric`, and `mean` over the targets' key metrics.

`mean` is over shares of 1 of which more is better: a metric that is a fraction or a correlation as it is; of an error
in a range's own unit, 1 - error / (high - low), squared errors by the square of that. A target none of whose samples
is labelled is left out, a key metric that is not defined counts as 0.

N: samples. Q: questions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.targets import MEAN, Target, of_target
from msekit.errors import MsekitError, nearest
from msekit.evaluation.answers import LabelSets
from msekit.evaluation.metrics import (
    METRICS,
    MetricFn,
    chosen_metrics,
    computed,
    metric_named,
    metrics_of,
    names_of_family,
)

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec

Array = NDArray[Any]


def metrics_of_targets(spec: DatasetSpec) -> MetricFn:
    """The metric function of several targets: `fn(truth [N, Q], prediction [N, Q])`.

    Raises:
        MsekitError: A target's name is a metric's, or a metric is chosen that there is not, or not for its target.
    """
    functions: dict[str, MetricFn] = {}
    for name, target in spec.targets.items():
        if name in METRICS:
            raise MsekitError(f"a target cannot be called '{name}', which is a metric", where=spec.name)
        functions[name] = _of_labels(spec, name, target) if target.labels else metrics_of(of_target(spec, name))
        _check_key(spec, name, target, target.key_metric)
        if spec.key_metric.partition(":")[0] == name:
            _check_key(spec, name, target, spec.key_metric.partition(":")[2])
    return partial(_computed, spec, functions)


def _of_labels(spec: DatasetSpec, name: str, target: Target) -> MetricFn:
    for metric in target.metrics or ():
        if "labels" not in metric_named(metric).families or ":" in metric:
            where = f"metrics of '{spec.name}', target '{name}'"
            raise MsekitError(f"'{metric}' is no metric of labels", where=where, fix=_listed(names_of_family("labels")))
    labels, names = target.labels or (), tuple(target.metrics or ())
    return lambda truth, prediction: computed(LabelSets(truth, prediction, labels), "labels", names)


def _check_key(spec: DatasetSpec, name: str, target: Target, key: str) -> None:
    """Refuse a key metric that is not computed."""
    if target.labels:
        has = list(target.metrics or names_of_family("labels"))
    else:
        own = of_target(spec, name)
        has = list(chosen_metrics(own)) or names_of_family("erc" if own.labels else own.metric_family)
    if key not in has:
        raise MsekitError(f"target '{name}' has no metric '{key}'", where=spec.name, fix=nearest(key, has))


def _listed(names: list[str]) -> str:
    return f"They are {', '.join(names)}."


def _computed(spec: DatasetSpec, functions: dict[str, MetricFn], truth: Array, prediction: Array) -> dict[str, Any]:
    """Every target's metrics, and their mean."""
    found: dict[str, Any] = {}
    shares, first = [], 0
    for name, target in spec.targets.items():
        columns = slice(first, first + len(target.labels or (name,)))
        first = columns.stop
        true, predicted = truth[:, columns], prediction[:, columns]
        if target.labels is None:
            true, predicted = true[:, 0], predicted[:, 0]
        own = functions[name](true, predicted)
        found |= {f"{name}:{metric}": value for metric, value in own.items()}
        if not np.isnan(true).all():
            shares.append(_share(target, own[target.key_metric]))
    return {MEAN: METRICS[MEAN].compute(shares)} | found


def _share(target: Target, value: float | None) -> float | None:
    """A target's key metric as a share of 1, of which more is better."""
    if value is None or metric_named(target.key_metric).higher_is_better:
        return value
    low, high = target.range or (0.0, 1.0)
    return 1 - value / (high - low) ** (2 if target.key_metric == "mse" else 1)
