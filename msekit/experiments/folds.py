"""`train --folds all` and `baseline NAME --folds all`: the runs of a cross-validation put together.

    <output>/fold-1/seed-1111/ …  folds.json  predictions-folds.jsonl

Mean and deviation are over the folds, each the mean of its seeds. The pooled metrics are of every fold's test answers
together, for each seed; their interval draws whole speakers, or else whole dialogues, because samples of one voice
stand or fall together.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.cache.cache import prepare
from msekit.data.cache.split_table import CacheSettings, SplitTable
from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.unlabelled import is_absent
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import metrics_of
from msekit.evaluation.units import show
from msekit.json_file import read_json_lines
from msekit.reporter import Reporter, table_of
from msekit.runs.files import FOLDS, POOLED, PREDICTIONS, write_json, write_lines
from msekit.runs.predictions import read_predictions
from msekit.runs.report import read_report, scalars
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of

_REPEATS = 1000


@dataclass(frozen=True)
class FoldRun:
    """A finished run on one fold."""

    output: Path
    """The seed's folder."""
    spec: DatasetSpec
    """With the fold that is tested."""
    seed: int
    dtype: str
    """Of the features in the cache."""


def fold_run(run: RunConfig) -> FoldRun:
    """A training run as one on a fold."""
    return FoldRun(run.output, spec_of(run), run.seed, run.data.dtype)


def by_fold(runs: Sequence[RunConfig]) -> dict[Path, list[RunConfig]]:
    """A fold's folder → the runs of its seeds."""
    folds: dict[Path, list[RunConfig]] = {}
    for run in runs:
        folds.setdefault(run.output.parent, []).append(run)
    return folds


def summarise_folds(folder: Path, runs: Sequence[FoldRun]) -> dict[str, Any]:
    """Put finished runs of several folds together, and write `folds.json` and the pooled predictions.

    Returns:
        The content of `folds.json`: `folds` (of each fold and seed its metrics), `over_folds` (mean and sample
        standard deviation), `pooled` (of each seed metrics and 95 % intervals), `grouped_by`.

    Raises:
        MsekitError: A run's files are missing or damaged.
    """
    folds = []
    for run in runs:
        report = read_report(run.output)
        assert report is not None, "the runs are finished"
        folds.append({"fold": run.spec.fold, "seed": run.seed, "metrics": report.metrics})
    groups, kind = _groups(runs)
    lines = [
        {"fold": run.spec.fold, "seed": run.seed, kind: group} | line
        for run in runs
        for group, line in zip(groups[run.spec.fold], _answered(run.output), strict=True)
    ]
    write_lines(folder / POOLED, lines)
    summary = {
        "folds": folds,
        "over_folds": _over_folds(folds),
        "pooled": {seed: _pooled([run for run in runs if run.seed == seed], groups) for seed in _seeds(runs)},
        "grouped_by": kind,
    }
    write_json(folder / FOLDS, summary)
    return summary


def _answered(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's predictions whose samples have a label."""
    return [line for line in read_json_lines(output / PREDICTIONS, "predictions file") if "truth" in line]


def _seeds(runs: Sequence[FoldRun]) -> list[int]:
    return list(dict.fromkeys(run.seed for run in runs))


def _over_folds(folds: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Metric → mean and sample standard deviation over the folds, each the mean of its seeds in which it is defined."""
    values: dict[str, dict[int, list[float]]] = {}
    for entry in folds:
        for name, value in scalars(entry["metrics"]).items():
            of_fold = values.setdefault(name, {}).setdefault(entry["fold"], [])
            of_fold.extend([] if value is None else [value])
    means = {name: [statistics.fmean(v) for v in by_fold.values() if v] for name, by_fold in values.items()}
    return {
        name: {
            "mean": statistics.fmean(v) if v else None,
            "std": statistics.stdev(v) if len(v) > 1 else None,
            "folds": len(v),
        }
        for name, v in means.items()
    }


def _pooled(runs: Sequence[FoldRun], groups: dict[Any, list[str]]) -> dict[str, Any]:
    """Metrics of one seed's answers in all folds together."""
    spec = runs[0].spec
    answers = [read_predictions(run.output, spec) for run in runs]
    truth = np.concatenate([part.truth for part in answers])
    prediction = np.concatenate([part.prediction for part in answers])
    of_sample = [group for run in runs for group in groups[run.spec.fold]]
    metric_fn = metrics_of(spec)
    return {
        "samples": len(truth),
        "metrics": metric_fn(truth, prediction),
        "confidence": bootstrap(truth, prediction, metric_fn, _REPEATS, groups=of_sample),
    }


def _groups(runs: Sequence[FoldRun]) -> tuple[dict[Any, list[str]], str]:
    """Fold → what each labelled sample of its test is drawn with, and what that is: speaker, dialogue, or sample."""
    first = {run.spec.fold: run for run in reversed(runs)}
    tests = {fold: prepare(run.spec, CacheSettings(dtype=run.dtype)).split("test") for fold, run in first.items()}
    rows = {
        fold: [row for row, label in enumerate(table.labels) if not is_absent(label)] for fold, table in tests.items()
    }
    for kind in ("speaker", "dialogue"):
        named: dict[Any, list[str]] = {fold: _names(tests[fold], kind, rows[fold]) for fold in tests}
        if all(all(names) for names in named.values()):
            return named, kind
    return {fold: [f"{fold} {tests[fold].ids[row]}" for row in rows[fold]] for fold in tests}, "sample"


def _names(table: SplitTable, kind: str, rows: list[int]) -> list[str]:
    names = table.speakers if kind == "speaker" else table.dialogues
    return [names[row] or "" for row in rows]


def show_folds(summary: dict[str, Any], folder: Path, reporter: Reporter) -> None:
    """One table: every fold, their mean and deviation, and all answers together."""
    numbers = list(dict.fromkeys(entry["fold"] for entry in summary["folds"]))
    seeds = list(summary["pooled"])
    rows = []
    for name, over in summary["over_folds"].items():
        cells = []
        for number in numbers:
            values = [scalars(entry["metrics"]).get(name) for entry in summary["folds"] if entry["fold"] == number]
            found = [value for value in values if value is not None]
            cells.append(show(name, statistics.fmean(found) if found else None))
        cells.append(show(name, over["mean"], spread=over["std"]))
        for seed in seeds:
            pooled = summary["pooled"][seed]
            cells.append(show(name, pooled["metrics"].get(name), interval=pooled["confidence"].get(name)))
        rows.append([name, *cells])
    pooled = [f"pooled, seed {seed}" for seed in seeds]
    headings = ["metric", *(f"fold {number}" for number in numbers), "mean ± std over folds", *pooled]
    reporter.show(table_of(headings, rows, "Cross-validation: test, each fold the mean of its seeds", numbers_from=1))
    reporter.show(f"in brackets: 95 % bootstrap over {summary['grouped_by']}s; {folder / FOLDS}")
