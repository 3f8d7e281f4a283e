"""Intervals of metrics by resampling the samples, or whole groups of them. N: samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from msekit.evaluation.metrics import Array, MetricFn, labelled


def bootstrap(
    truth: Array,
    prediction: Array,
    metric_fn: MetricFn,
    repeats: int = 1000,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
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
        groups: What each sample belongs to (N of them: a speaker, a dialogue); whole groups are then drawn.

    Returns:
        Metric name → [2.5th percentile, 97.5th percentile] over the resamples in which it is defined; None
        where it is defined in none. Tables (`per_class_f1`) are left out.
    """
    if groups is not None and len(groups) != len(truth):
        raise ValueError(f"{len(groups)} groups for {len(truth)} samples")
    truth, prediction = labelled(truth, prediction)
    names = [name for name, value in metric_fn(truth, prediction).items() if not isinstance(value, dict)]
    rng = np.random.default_rng(seed)
    kept: dict[str, list[float]] = {name: [] for name in names}
    members = _members(groups) if groups is not None else []
    for _ in range(repeats if len(truth) else 0):
        chosen = rng.integers(0, len(truth), len(truth))
        if members:
            chosen = np.concatenate([members[place] for place in rng.integers(0, len(members), len(members))])
        replicate = metric_fn(truth[chosen], prediction[chosen])
        for name in names:
            if replicate[name] is not None:
                kept[name].append(replicate[name])
    return {name: np.percentile(values, [2.5, 97.5]).tolist() if values else None for name, values in kept.items()}


def _members(groups: Sequence[Hashable]) -> list[Array]:
    """The positions of each group's samples."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return [np.array(found) for found in places.values()]
