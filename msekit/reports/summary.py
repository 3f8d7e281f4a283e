"""The last thing `train` says: each seed's metrics with intervals, their mean, and `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from msekit.reports.aggregate import aggregate
from msekit.reports.render import show
from msekit.runs.files import SUMMARY, write_json
from msekit.runs.report import Report, RunReport, collect


def summarise(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Mean and sample standard deviation over all finished seeds in the folder that are comparable to this one.

    Returns:
        `{"seeds", "metrics": {name: {"mean", "std"}}, "warnings"}`; warnings say what the seeds do not share.
    """
    key = RunReport(folder, Report.model_validate(report)).key
    group = aggregate([found for found in collect([folder]) if found.key == key])[0]
    metrics = {name: {"mean": summary.mean, "std": summary.std} for name, summary in group.metrics.items()}
    return {"seeds": group.seeds, "metrics": metrics, "warnings": group.warnings}


def write_summary(folder: Path, reports: list[dict[str, Any]]) -> None:
    """Write `summary.json` beside the seeds' folders."""
    write_json(folder / SUMMARY, summarise(folder, reports[0]))


def show_summary(folder: Path, reports: list[dict[str, Any]], console: Console) -> None:
    """Print the result."""
    first = reports[0]
    table = Table(title=escape(f"{first['backbone']} on {first['dataset']}: test, {first['samples']} samples"))
    table.add_column("metric")
    for report in reports:
        table.add_column(f"seed {report['seed']}")
    table.add_column("mean ± std")
    summary = summarise(folder, first)
    for metric, spread in summary["metrics"].items():
        cells = [_cell(report["metrics"][metric], report["confidence"].get(metric)) for report in reports]
        std = f" ± {spread['std']:.4f}" if spread["std"] is not None else ""
        mean = "undefined" if spread["mean"] is None else f"{spread['mean']:.4f}{std}"
        table.add_row(metric, *cells, mean)
    console.print(table)
    console.print(
        f"estimate {first['estimate']}; in brackets: 95 % bootstrap over test samples; "
        f"{first['trainable_parameters']:,} trainable parameters; peak memory "
        f"{max(report['peak_memory_bytes'] for report in reports) / 1e9:.2f} GB; "
        f"{first['train_samples_per_s']:.1f} train samples/s",
        highlight=False,
    )
    for warning in summary["warnings"]:
        console.print(f"[yellow]Warning:[/yellow] {escape(warning)}", soft_wrap=True)
    for report in reports:
        console.print(escape(f"run folder: {folder / ('seed-' + str(report['seed']))}"), soft_wrap=True)


def _cell(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "undefined"
    return escape(f"{value:.4f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))


def show_metrics(report: dict[str, Any], console: Console) -> None:
    """Print one evaluation."""
    shuffled = ", audio and vision shuffled" if report.get("shuffled") else ""
    withheld = f", without {' and '.join(report['tested_without'])}" if report.get("tested_without") else ""
    title = f"{report['backbone']} on {report['dataset']}: {report['split']}{shuffled}{withheld}"
    table = Table(title=escape(title))
    table.add_column("metric")
    table.add_column("value [95 % bootstrap]")
    for metric, value in report["metrics"].items():
        if isinstance(value, dict):
            for label, part in value.items():
                table.add_row(escape(f"{metric} {label}"), _cell(part, None))
        else:
            table.add_row(metric, _cell(value, report["confidence"].get(metric)))
    console.print(table)
    console.print(f"{report['samples']} samples, estimate {report['estimate']}", highlight=False)


def show_cases(heading: str, report: dict[str, Any], console: Console) -> None:
    """Print the metrics of several cases (`report["metrics"]`: case → metrics) side by side."""
    cases = report["metrics"]
    names = [name for name, value in next(iter(cases.values())).items() if not isinstance(value, dict)]
    table = Table(heading, *names, title=escape(f"{report['backbone']} on {report['dataset']}: {report['split']}"))
    for case, metrics in cases.items():
        table.add_row(escape(case), *(show(name, metrics[name]) for name in names))
    console.print(table)
