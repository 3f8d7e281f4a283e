"""`msekit compare A B`: is the difference between two sets of runs more than chance?

Two questions, two tests. Over test samples: a paired bootstrap of the difference of the seeds' mean metric (95 %
percentile interval), and approximate randomisation (Noreen 1989), which swaps A's and B's answers to a sample, for the
p-value. All metrics are computed on each resample together, which scipy's one-statistic functions would repeat for
each. Over training seeds: a paired t test on the seeds that both have (scipy, of the extra `stats`; without it that
p-value alone is left out, with a warning).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import refuse_several
from msekit.errors import MsekitError
from msekit.evaluation.metrics import MetricFn, metrics_of
from msekit.evaluation.units import show
from msekit.reporter import Reporter, table_of
from msekit.reports.aggregate import aggregate
from msekit.runs.description import read_spec_of
from msekit.runs.predictions import Predictions, read_predictions
from msekit.runs.report import RunReport, collect

Array = NDArray[Any]
_SEED = 0


class Seeds(TypedDict):
    """Training seeds of the two sides, and those that both have."""

    a: list[int]
    b: list[int]
    paired: list[int]


class MetricComparison(TypedDict):
    """One metric; None where it is undefined."""

    a: float | None
    """Mean over A's seeds."""
    b: float | None
    difference: float | None
    """B - A."""
    interval: list[float] | None
    """95 % of the difference over resamples of the test samples."""
    p_samples: float | None
    p_seeds: float | None
    """None for fewer than two common seeds, or where they do not vary."""


class Comparison(TypedDict):
    """What `msekit compare --format json` prints."""

    a: str
    b: str
    dataset: str
    samples: int
    seeds: Seeds
    metrics: dict[str, MetricComparison]
    warnings: list[str]
    """What the seeds of a side do not share, and what could not be computed."""


def compare(first: Path, second: Path, repeats: int = 1000) -> Comparison:
    """Compare two runs, or two folders of seeds, on the same test samples.

    Args:
        first: A: a seed's folder, or one that holds `seed-*` folders.
        second: B, likewise.
        repeats: Resamples, and randomisations.

    Returns:
        The document of `msekit compare --format json`.

    Raises:
        MsekitError: A side's runs are not of one kind, or the sides are of different data sets or test samples.
    """
    (runs_a, warnings_a), (runs_b, warnings_b) = (_side(folder) for folder in (first, second))
    spec = read_spec_of(runs_a[0].path)
    refuse_several(spec, "a comparison sample by sample")
    for run in (*runs_a, *runs_b):
        _refuse_other_labels(spec, run.path)
    answers_a, answers_b = ([read_predictions(run.path, spec) for run in runs] for runs in (runs_a, runs_b))
    _check_same([*answers_a, *answers_b], [*runs_a, *runs_b])
    truth = answers_a[0].truth
    if not len(truth):
        raise MsekitError("no test sample has a label: there is nothing to compare", where=runs_a[0].path)
    stacked_a, stacked_b = (
        np.stack([run_answers.prediction for run_answers in answers]) for answers in (answers_a, answers_b)
    )
    metric_fn = metrics_of(spec)
    scores_a, scores_b = mean_metrics(metric_fn, truth, stacked_a), mean_metrics(metric_fn, truth, stacked_b)
    intervals = paired_bootstrap(metric_fn, truth, stacked_a, stacked_b, repeats)
    chances = randomisation(metric_fn, truth, stacked_a, stacked_b, repeats)
    common = sorted({run.seed for run in runs_a} & {run.seed for run in runs_b})
    untested = find_spec("scipy") is None and len(common) > 1
    over_seeds = {} if untested else seeds_test(runs_a, runs_b)
    without = ['no t test over seeds: it needs scipy, `pip install "msekit[stats]"`'] if untested else []
    return {
        "a": str(first),
        "b": str(second),
        "dataset": spec.name,
        "samples": len(truth),
        "seeds": {"a": [run.seed for run in runs_a], "b": [run.seed for run in runs_b], "paired": common},
        "metrics": {
            name: {
                "a": scores_a[name],
                "b": scores_b[name],
                "difference": _minus(scores_b[name], scores_a[name]),
                "interval": intervals[name],
                "p_samples": chances[name],
                "p_seeds": over_seeds.get(name),
            }
            for name in scores_a
        },
        "warnings": [*(f"A: {line}" for line in warnings_a), *(f"B: {line}" for line in warnings_b), *without],
    }


def _side(folder: Path) -> tuple[list[RunReport], list[str]]:
    """The runs of a folder, and what they do not share."""
    group, *others = aggregate(collect([folder]))
    if others:
        raise MsekitError(
            "the runs there were made with different settings, and have no common mean",
            where=folder,
            fix=f"Compare a seed's folder, or move away those that do not belong: {others[0].members[0].path.name}.",
        )
    return group.members, group.warnings


def _refuse_other_labels(spec: DatasetSpec, folder: Path) -> None:
    other = read_spec_of(folder)
    if (spec.task, spec.labels, spec.range) != (other.task, other.labels, other.range):
        raise MsekitError(
            f"the runs do not answer with the same labels: {other.labels or other.range}, {spec.labels or spec.range}",
            where=folder,
            fix="Compare runs of one data set.",
        )


def _check_same(answers: Sequence[Predictions], runs: Sequence[RunReport]) -> None:
    for run_answers, run in zip(answers, runs, strict=True):
        if run_answers.ids != answers[0].ids or not np.array_equal(run_answers.truth, answers[0].truth):
            raise MsekitError(
                "the runs were not tested on the same samples", where=run.path, fix="Compare runs of one data set."
            )


def mean_metrics(metric_fn: MetricFn, truth_N: Array, predictions_SN: Array) -> dict[str, float | None]:
    """Every scalar metric, its mean over the seeds (rows) in which it is defined."""
    by_seed = [metric_fn(truth_N, prediction_N) for prediction_N in predictions_SN]
    means: dict[str, float | None] = {}
    for name in (name for name, value in by_seed[0].items() if not isinstance(value, dict)):
        values = [scores[name] for scores in by_seed if scores[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def paired_bootstrap(
    metric_fn: MetricFn, truth_N: Array, a_SN: Array, b_SN: Array, repeats: int
) -> dict[str, list[float] | None]:
    """95 % percentile interval of B - A over resamples of the test samples, the same for both."""
    rng = np.random.default_rng(_SEED)
    differences: dict[str, list[float]] = {}
    for _ in range(repeats):
        chosen = rng.integers(0, len(truth_N), len(truth_N))
        a, b = (mean_metrics(metric_fn, truth_N[chosen], predictions_SN[:, chosen]) for predictions_SN in (a_SN, b_SN))
        for name in a:
            if (difference := _minus(b[name], a[name])) is not None:
                differences.setdefault(name, []).append(difference)
    names = mean_metrics(metric_fn, truth_N, a_SN)
    return {
        name: np.percentile(differences[name], [2.5, 97.5]).tolist() if name in differences else None for name in names
    }


def randomisation(
    metric_fn: MetricFn, truth_N: Array, a_SN: Array, b_SN: Array, repeats: int
) -> dict[str, float | None]:
    """Two-sided p-value: how often swapping the answers of random samples gives a difference at least as large.

    With as many seeds on both sides, seeds are swapped pairwise; otherwise the sides' mean answers differ in more than
    the swap can exchange, and no p-value is given.
    """
    observed = _differences(metric_fn, truth_N, a_SN, b_SN)
    if len(a_SN) != len(b_SN):
        return dict.fromkeys(observed)
    rng = np.random.default_rng(_SEED)
    extreme = dict.fromkeys(observed, 0)
    for _ in range(repeats):
        swap_N = rng.random(len(truth_N)) < 0.5
        drawn = _differences(metric_fn, truth_N, np.where(swap_N, b_SN, a_SN), np.where(swap_N, a_SN, b_SN))
        for name, difference in drawn.items():
            real = observed[name]
            extreme[name] += real is not None and difference is not None and abs(difference) >= abs(real) - 1e-12
    return {name: None if observed[name] is None else (extreme[name] + 1) / (repeats + 1) for name in observed}


def _differences(metric_fn: MetricFn, truth_N: Array, a_SN: Array, b_SN: Array) -> dict[str, float | None]:
    a, b = mean_metrics(metric_fn, truth_N, a_SN), mean_metrics(metric_fn, truth_N, b_SN)
    return {name: _minus(b[name], a[name]) for name in a}


def seeds_test(runs_a: Sequence[RunReport], runs_b: Sequence[RunReport]) -> dict[str, float | None]:
    """Paired t test over the common seeds, per metric; None where fewer than two, or where they do not vary."""
    from scipy.stats import ttest_rel

    metrics_a, metrics_b = ({run.seed: run.report.scalars for run in runs} for runs in (runs_a, runs_b))
    common = sorted(metrics_a.keys() & metrics_b.keys())
    chances: dict[str, float | None] = {}
    for name in runs_a[0].report.scalars:
        values_a, values_b = ([metrics[seed].get(name) for seed in common] for metrics in (metrics_a, metrics_b))
        a, b = ([value for value in values if value is not None] for values in (values_a, values_b))
        defined = len(a) == len(b) == len(common)
        if len(common) < 2 or not defined or np.ptp(np.subtract(b, a)) < 1e-12:
            chances[name] = None
        else:
            chances[name] = float(ttest_rel(b, a).pvalue)
    return chances


def _minus(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None else b - a


def show_comparison(document: Comparison, reporter: Reporter) -> None:
    """Show the metrics side by side, with interval and p-values, and warn of what a side's seeds do not share."""
    rows = []
    for name, cell in document["metrics"].items():
        difference = show(name, cell["difference"], interval=cell["interval"], signed=True)
        chances = ("" if cell[key] is None else f"{cell[key]:.4f}" for key in ("p_samples", "p_seeds"))
        rows.append((name, show(name, cell["a"]), show(name, cell["b"]), difference, *chances))
    headings = ("metric", "A", "B", "B - A [95 %]", "p, samples", "p, seeds")
    reporter.show(table_of(headings, rows, f"{document['dataset']}, test", numbers_from=1))
    for warning in document["warnings"]:
        reporter.warn(warning)
    seeds = document["seeds"]
    reporter.show(
        f"A {document['a']} (seeds {seeds['a']}), B {document['b']} (seeds {seeds['b']}); {document['samples']} "
        "samples. Samples: paired bootstrap and approximate randomisation; seeds: paired t test."
    )
