"""The last thing `train` says: each seed's metrics with intervals, their mean, and `summary.json`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msekit.data.catalogue import DATASETS
from msekit.data.readers.synthetic import ceiling
from msekit.evaluation.units import show
from msekit.reporter import Reporter, table_of
from msekit.reports.aggregate import aggregate
from msekit.reports.beside import bars
from msekit.runs.files import SUMMARY, write_json
from msekit.runs.report import Report, RunReport, collect


def summarise(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Mean and sample standard deviation over all finished seeds in the folder that are comparable to this one.

    Returns:
        `{"seeds", "metrics": {name: {"mean", "std"}}, "warnings"}`; warnings say what the seeds do not share.
    """
    key = RunReport(folder, Report.model_validate(report)).key
    group = aggregate([other for other in collect([folder]) if other.key == key])[0]
    metrics = {name: {"mean": summary.mean, "std": summary.std} for name, summary in group.metrics.items()}
    return {"seeds": group.seeds, "metrics": metrics, "warnings": group.warnings}


def write_summary(folder: Path, reports: list[dict[str, Any]]) -> None:
    """Write `summary.json` beside the seeds' folders."""
    write_json(folder / SUMMARY, summarise(folder, reports[0]))


def show_summary(folder: Path, reports: list[dict[str, Any]], reporter: Reporter) -> None:
    """Show what training gave."""
    first = reports[0]
    summary = summarise(folder, first)
    rows = [
        [
            metric,
            *(
                show(metric, report["metrics"].get(metric), interval=(report.get("confidence") or {}).get(metric))
                for report in reports
            ),
            show(metric, over_seeds["mean"], spread=over_seeds["std"]),
        ]
        for metric, over_seeds in summary["metrics"].items()
    ]
    headings = ["metric", *(f"seed {report['seed']}" for report in reports), "mean ± std"]
    title = f"{first['backbone']} on {first['dataset']}: test, {_samples(first)}"
    reporter.show(table_of(headings, rows, title, numbers_from=1))
    facts = [f"estimate {first['estimate']}; in brackets: 95 % bootstrap over test samples"]
    if (parameters := first.get("trainable_parameters")) is not None:
        facts.append(f"{parameters:,} trainable parameters")
    if peaks := [peak for report in reports if (peak := report.get("peak_memory_bytes")) is not None]:
        facts.append(f"peak memory {max(peaks) / 1e9:.2f} GB{_reserved(reports)}")
    if (speed := first.get("train_samples_per_s")) is not None:
        facts.append(f"{speed:.1f} train samples/s")
    reporter.show("; ".join(facts), *meaning(reports))
    for bar in collect(bars(collect([folder]))):
        metrics = ", ".join(f"{name} {show(name, bar.report.scalars.get(name))}" for name in summary["metrics"])
        reporter.show(f"{bar.report.adapter} on the same LLM and data: {metrics}")
    for warning in summary["warnings"]:
        reporter.warn(warning)
    for report in reports:
        reporter.note(f"run folder: {folder / ('seed-' + str(report['seed']))}")
    for line in next_steps(folder / f"seed-{reports[-1]['seed']}"):
        reporter.note(line)


def meaning(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the scores are worth: beside those with shuffled modalities, and beside what is known of a made-up set."""
    shuffled = [report["integrity"]["metrics"] for report in reports if report.get("integrity")]
    lines = []
    if shuffled:
        names = [name for name, value in shuffled[0].items() if not isinstance(value, dict)]
        means = {name: [metrics[name] for metrics in shuffled if metrics[name] is not None] for name in names}
        worth = ", ".join(f"{name} {show(name, sum(values) / len(values))}" for name, values in means.items() if values)
        lines.append(f"with audio and vision shuffled between samples: {worth}")
    made_up = DATASETS.get(reports[0]["dataset"])
    if made_up is not None and made_up.layout == "synthetic":
        known = ceiling(made_up.name)
        for name in [name for name in known["text-only"] if ":" in name] or [next(iter(known["text-only"]))]:
            text, one, full = (show(name, known[which][name]) for which in ("text-only", "no-vision", "full"))
            said = f"{text} by text alone, {one} with one modality, {full} with all"
            lines.append(f"the best {name} there can be on this set: {said}")
    return lines


def next_steps(run: Path) -> list[str]:
    """Three commands to try on a finished run, and what has to be installed before."""
    shown = os.path.relpath(run) if run.is_relative_to(Path.cwd()) else str(run)
    name = shlex.quote(shown)
    return [
        "next:",
        f'  msekit predict {name} --text "So you are leaving tomorrow."',
        f"  msekit report {name} --format html --output report.html{_before('matplotlib', 'plot')}",
        f"  msekit serve {name}{_before('uvicorn', 'serve')}",
    ]


def _before(package: str, extra: str) -> str:
    """A comment behind a command whose package is absent."""
    return f'    # after pip install "msekit[{extra}]"' if find_spec(package) is None else ""


def _samples(report: dict[str, Any]) -> str:
    """How many samples there are, and how many of them the metrics leave out."""
    without = report.get("without_label")
    return f"{report['samples']} samples{f', {without} of them without a label' if without else ''}"


def _reserved(reports: list[dict[str, Any]]) -> str:
    """What a GPU's allocator held beside; nothing where no GPU was used."""
    held = [report["peak_memory_reserved_bytes"] for report in reports if report.get("peak_memory_reserved_bytes")]
    return f" ({max(held) / 1e9:.2f} GB held by the allocator)" if held else ""


def show_metrics(report: dict[str, Any], reporter: Reporter) -> None:
    """Show one evaluation."""
    shuffled = ", audio and vision shuffled" if report.get("shuffled") else ""
    withheld = f", without {' and '.join(report['tested_without'])}" if report.get("tested_without") else ""
    title = f"{report['backbone']} on {report['dataset']}: {report['split']}{shuffled}{withheld}"
    rows = []
    for metric, value in report["metrics"].items():
        if isinstance(value, dict):
            rows += [(f"{metric} {label}", show(metric, part)) for label, part in value.items()]
        else:
            rows.append((metric, show(metric, value, interval=(report.get("confidence") or {}).get(metric))))
    caption = f"{_samples(report)}, estimate {report['estimate']}"
    reporter.show(table_of(("metric", "value [95 % bootstrap]"), rows, title, caption=caption, numbers_from=1))


def show_cases(heading: str, report: dict[str, Any], reporter: Reporter) -> None:
    """Show the metrics of several cases (`report["metrics"]`: case → metrics) side by side."""
    cases = report["metrics"]
    names = [name for name, value in next(iter(cases.values())).items() if not isinstance(value, dict)]
    rows = [(case, *(show(name, metrics[name]) for name in names)) for case, metrics in cases.items()]
    title = f"{report['backbone']} on {report['dataset']}: {report['split']}"
    reporter.show(table_of((heading, *names), rows, title, numbers_from=1))
