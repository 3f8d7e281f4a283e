"""Groups of comparable runs as Markdown, JSON or a terminal table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from msekit.errors import shown
from msekit.evaluation.units import show
from msekit.reporter import Reporter, table_of
from msekit.reports.aggregate import Group, MetricSummary

HEADINGS = ("metric", "value", "paper", "difference", "shuffled")


def cells(metric: str, summary: MetricSummary, seeds: int) -> tuple[str, ...]:
    """A metric's line of a table, in the order of HEADINGS; the value with its spread."""
    interval = summary.confidence if summary.std is None else None
    value = show(metric, summary.mean, spread=summary.std, interval=interval)
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


def as_json(group: Group) -> dict[str, Any]:
    """A group for programs; metrics as fractions."""
    return {
        **group.values,
        "seeds": group.seeds,
        "n": len(group.seeds),
        "metrics": {name: asdict(summary) for name, summary in group.metrics.items()},
        "warnings": group.warnings,
    }


def render_json(groups: Sequence[Group]) -> str:
    """One JSON document: a list of groups."""
    document = [as_json(group) for group in groups]
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def plain_markdown(text: str) -> str:
    """A text that names come into, for a line or a table of Markdown: no tags, no columns of its own."""
    return shown(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def render_markdown(groups: Sequence[Group]) -> str:
    """A heading, a table and the warnings of every group."""
    parts = []
    for group in groups:
        lines = [f"### {plain_markdown(group.title)}", "", seeds_line(group), "", f"| {' | '.join(HEADINGS)} |"]
        lines.append("|---|---:|---:|---:|---:|")
        lines += [
            f"| {' | '.join(map(plain_markdown, cells(name, summary, len(group.seeds))))} |"
            for name, summary in group.metrics.items()
        ]
        if group.warnings:
            lines += ["", *(f"- **Warning:** {plain_markdown(warning)}" for warning in group.warnings)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def render_table(groups: Sequence[Group], reporter: Reporter) -> None:
    """Show every group as a table, and warn of what makes its seeds less comparable."""
    for group in groups:
        rows = [cells(name, summary, len(group.seeds)) for name, summary in group.metrics.items()]
        reporter.show(table_of(HEADINGS, rows, group.title, caption=seeds_line(group), numbers_from=1))
        for warning in group.warnings:
            reporter.warn(warning)
