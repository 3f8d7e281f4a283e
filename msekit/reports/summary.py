"""The last thing `train` says: each seed's metrics with intervals, their mean, and `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
                show(metric, report["metrics"].get(metric), interval=report["confidence"].get(metric))
                for report in reports
            ),
            show(metric, over_seeds["mean"], spread=over_seeds["std"]),
        ]
        for metric, over_seeds in summary["metrics"].items()
    ]
    headings = ["metric", *(f"seed {report['seed']}" for report in reports), "mean ± std"]
    title = f"{first['backbone']} on {first['dataset']}: test, {first['samples']} samples"
    reporter.show(table_of(headings, rows, title, numbers_from=1))
    reporter.show(
        f"estimate {first['estimate']}; in brackets: 95 % bootstrap over test samples; "
        f"{first['trainable_parameters']:,} trainable parameters; peak memory "
        f"{max(report['peak_memory_bytes'] for report in reports) / 1e9:.2f} GB{_reserved(reports)}; "
        f"{first['train_samples_per_s']:.1f} train samples/s"
    )
    for bar in collect(bars(collect([folder]))):
        metrics = ", ".join(f"{name} {show(name, bar.report.scalars.get(name))}" for name in summary["metrics"])
        reporter.show(f"{bar.report.adapter} on the same LLM and data: {metrics}")
    for warning in summary["warnings"]:
        reporter.warn(warning)
    for report in reports:
        reporter.note(f"run folder: {folder / ('seed-' + str(report['seed']))}")


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
            rows.append((metric, show(metric, value, interval=report["confidence"].get(metric))))
    caption = f"{report['samples']} samples, estimate {report['estimate']}"
    reporter.show(table_of(("metric", "value [95 % bootstrap]"), rows, title, caption=caption, numbers_from=1))


def show_cases(heading: str, report: dict[str, Any], reporter: Reporter) -> None:
    """Show the metrics of several cases (`report["metrics"]`: case → metrics) side by side."""
    cases = report["metrics"]
    names = [name for name, value in next(iter(cases.values())).items() if not isinstance(value, dict)]
    rows = [(case, *(show(name, metrics[name]) for name in names)) for case, metrics in cases.items()]
    title = f"{report['backbone']} on {report['dataset']}: {report['split']}"
    reporter.show(table_of((heading, *names), rows, title, numbers_from=1))
