"""Groups of comparable runs as Markdown, JSON or a terminal table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
from msekit.reports.aggregate import Group, MetricSummary

UNSCALED = ("mae", "corr")
"""Metrics shown as they are, with three decimals; all others in percent with two."""


def show(metric: str, value: float | None, signed: bool = False) -> str:
    """A metric's value as tables show it: percent with two decimals, or three decimals for `mae` and `corr`."""
    if value is None:
        return "undefined"
    scale, digits = (1.0, 3) if metric in UNSCALED else (100.0, 2)
    return f"{value * scale:{'+' if signed else ''}.{digits}f}"


HEADINGS = ("metric", "value", "paper", "difference", "shuffled")


def cells(metric: str, summary: MetricSummary, seeds: int) -> tuple[str, ...]:
    """A metric's line of a table, in the order of HEADINGS; the value with its spread."""
    value = show(metric, summary.mean)
    if summary.std is not None:
        value += f" ± {show(metric, summary.std)}"
    elif summary.mean is not None and summary.confidence is not None:
        value += f" [{', '.join(show(metric, bound) for bound in summary.confidence)}]"
    if 0 < summary.seeds < seeds:
        value += f" (defined in {summary.seeds} of {seeds})"
    paper = "" if summary.paper is None else show(metric, summary.paper)
    difference = "" if summary.difference is None else show(metric, summary.difference, signed=True)
    shuffled = "" if summary.shuffled is None else show(metric, summary.shuffled)
    return metric, value, paper, difference, shuffled


def seeds_line(group: Group) -> str:
    """How many seeds, which, and what stands beside the values."""
    count = len(group.seeds)
    beside = "mean ± standard deviation" if count > 1 else "[95 % interval over the samples]"
    return f"{count} seed{'s' if count > 1 else ''} ({', '.join(map(str, group.seeds))}): {beside}"


def render_json(groups: Sequence[Group]) -> str:
    """One JSON document: a list of groups, their metrics as fractions."""
    document = [
        {
            **group.values,
            "seeds": group.seeds,
            "n": len(group.seeds),
            "metrics": {name: asdict(summary) for name, summary in group.metrics.items()},
            "warnings": group.warnings,
        }
        for group in groups
    ]
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def render_markdown(groups: Sequence[Group]) -> str:
    """A heading, a table and the warnings of every group; accuracies and F1 in percent."""
    parts = []
    for group in groups:
        lines = [f"### {group.title}", "", seeds_line(group), "", f"| {' | '.join(HEADINGS)} |"]
        lines.append("|---|---:|---:|---:|---:|")
        lines += [
            f"| {' | '.join(cells(name, summary, len(group.seeds)))} |" for name, summary in group.metrics.items()
        ]
        if group.warnings:
            lines += ["", *(f"- **Warning:** {warning}" for warning in group.warnings)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def render_table(groups: Sequence[Group], console: Console) -> None:
    """Draw every group as a rich table on the console."""
    from rich.markup import escape
    from rich.table import Table

    for group in groups:
        table = Table(title=escape(group.title), caption=escape(seeds_line(group)))
        table.add_column("metric")
        for heading in HEADINGS[1:]:
            table.add_column(heading, justify="right")
        for name, summary in group.metrics.items():
            table.add_row(*(escape(cell) for cell in cells(name, summary, len(group.seeds))))
        console.print(table)
        for warning in group.warnings:
            console.print(f"[yellow]Warning:[/yellow] {escape(warning)}")
