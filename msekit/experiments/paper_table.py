"""Finished experiments → the paper's table with ours beside it: mean ± std, difference, what is not as published."""

from __future__ import annotations

from typing import Any

from msekit import paper
from msekit.data.catalogue import resolve_dataset
from msekit.errors import MsekitError
from msekit.evaluation.units import fraction, show
from msekit.experiments.paper_runs import PLUGINS, SEEDS, TABLES, Experiment
from msekit.reporter import Reporter, table_of
from msekit.reports.aggregate import MetricSummary, aggregate
from msekit.runs.config import read_config
from msekit.runs.report import collect, flatten
from msekit.settings.config import RunConfig
from msekit.settings.resolve import resolve

TASK_METRICS = {"erc": ("acc", "wf1"), "msa": ("acc2", "f1", "acc7", "mae", "corr")}
NEVER_PUBLISHED = (
    *("output", "seed", "source", "recipe", "dataset", "save_minutes"),
    *("evaluation.bootstrap", "evaluation.batch_size"),
)
"""Settings that change no number, or that have a word of their own."""
RIVALS = {
    "mag": "MAG: learning rate and batch size are MSE-Adapter's, not its own paper's; no dropout",
    "chfn": "CHFN: learning rate and batch size are MSE-Adapter's, not its own paper's",
}
"""What the paper did otherwise with the rivals of Table 5 (its footnote), or left unsaid."""


def reproduced(table: str, experiments: list[Experiment]) -> dict[str, Any]:
    """All that a table needs, as one document.

    Args:
        table: `table2` … `table5`.
        experiments: Its experiments; those without a finished run have empty cells.

    Returns:
        `{"table", "caption", "footnotes", "rows", "warnings", "differs", "paper"}`; warnings are what makes a row's
        seeds less comparable, or a seed that answers the same to every sample. A row: `{"row", "key", "dataset",
        "backbone", "seeds", "trainable", "metrics": {name: {"mean", "std", "shuffled", "change", "paper",
        "difference"}}}`.
        `change` is against the full adapter (tables 4 and 5). Fractions; but `paper` holds the rows as printed.
    """
    warnings: list[str] = []
    rows = [_row(table, experiment, warnings) for experiment in experiments]
    full = {(row["dataset"], row["backbone"]): row["metrics"] for row in rows if row["key"] == "mse"}
    for row in rows:
        for name, cell in row["metrics"].items():
            base = full.get((row["dataset"], row["backbone"]), {}).get(name, {}).get("mean")
            compared = table in ("table4", "table5") and row["key"] != "mse" and None not in (base, cell["mean"])
            cell["change"] = cell["mean"] - base if compared else None
    original = TABLES[table]
    return {
        "table": table,
        "caption": original.caption,
        "footnotes": list(original.footnotes),
        "rows": rows,
        "warnings": warnings,
        "differs": differences(experiments),
        "paper": [
            {"row": row.model, "cells": {f"{d}.{m}": v for (d, m), v in row.cells.items()}} for row in original.rows
        ],
    }


def _row(table: str, experiment: Experiment, warnings: list[str]) -> dict[str, Any]:
    """One experiment's line; metrics are empty before its first run is finished. Adds to the warnings."""
    spec = resolve_dataset(experiment.dataset)
    printed = {
        metric: fraction(metric, value)
        for (dataset, metric), value in paper.table_cells(TABLES[table], experiment.row).items()
        if dataset == spec.name
    }
    line: dict[str, Any] = {
        "row": experiment.row,
        "key": experiment.key,
        "dataset": spec.name,
        "backbone": experiment.backbone,
    }
    folders = experiment.finished()
    if not folders:
        return line | {"seeds": [], "trainable": None, "metrics": {}}
    group, *others = aggregate(collect(folders))
    if others:
        raise MsekitError(
            f"the finished runs of row '{experiment.row}' were made with different settings",
            where=folders[0].parent,
            fix="Move those away that do not belong, or give every setting its own --output.",
        )
    warnings += [f"{experiment.row} on {spec.name}, {experiment.backbone}: {line}" for line in group.warnings]
    # Table 4's rows do not name a backbone: they are ChatGLM3-6B's
    comparable = table != "table4" or experiment.backbone == "chatglm3-6b"
    names = [name for name in dict.fromkeys((*TASK_METRICS[spec.task], *printed)) if name in group.metrics]
    metrics = {name: _cell(group.metrics[name], printed.get(name) if comparable else None) for name in names}
    trainable = group.members[0].report.trainable_parameters
    return line | {"seeds": group.seeds, "trainable": trainable, "metrics": metrics}


def _cell(summary: MetricSummary, printed: float | None) -> dict[str, float | None]:
    difference = None if printed is None or summary.mean is None else summary.mean - printed
    shown = {"mean": summary.mean, "std": summary.std, "shuffled": summary.shuffled}
    return shown | {"paper": printed, "difference": difference}


def differences(experiments: list[Experiment]) -> list[str]:
    """What is not as the paper did it, a line each, over all experiments."""
    lines: dict[str, None] = {}
    for experiment in experiments:
        spec = resolve_dataset(experiment.dataset)
        if experiment.backbone not in paper.PAPER_BACKBONES:
            lines[f"backbone {experiment.backbone}: not one of the paper's"] = None
        if spec.name not in paper.PAPER_DATASETS:
            lines[f"data set {spec.name}: not one of the paper's"] = None
        if experiment.adapter in PLUGINS.values():
            lines[f"adapter {experiment.adapter}: not the paper's plug-in"] = None
        if experiment.key in RIVALS and spec.name in paper.PAPER_DATASETS:
            lines[RIVALS[experiment.key]] = None
        for run in _settings(experiment):
            for line in _settings_apart(run, spec.task):
                lines[line] = None
    others = sorted({run.seed for experiment in experiments for run in experiment.runs} - set(SEEDS))
    if others:
        lines[f"seeds {', '.join(map(str, others))}: not the paper's"] = None
    counts = sorted({len(experiment.finished()) for experiment in experiments})
    if counts[0] < len(SEEDS):
        reached = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
        lines[f"{reached} seeds of the paper's {len(SEEDS)}"] = None
    return list(lines)


def _settings(experiment: Experiment) -> list[RunConfig]:
    """The settings of the finished runs; before the first, those planned."""
    folders = experiment.finished()
    return [read_config(folder) for folder in folders] or experiment.runs[:1]


def _settings_apart(run: RunConfig, task: str) -> list[str]:
    """A run's settings that recipe `paper` would set otherwise for its pair."""
    settings = {"backbone": run.backbone, "dataset": run.dataset, "output": run.output, "recipe": "paper"}
    settings["adapter"] = {"name": run.adapter.name, "ablate": run.adapter.ablate}
    ours, theirs = (flatten(config.model_dump(mode="json")) for config in (run, resolve(settings, task=task)))
    # what the recipe leaves open stands in a run's settings as it was decided there
    apart = [key for key in ours if key not in NEVER_PUBLISHED and theirs.get(key) not in (ours[key], "auto")]
    recipe = [f"recipe {run.recipe}"] if run.recipe != "paper" else []
    return recipe + [f"{key} {ours[key]} (recipe paper: {theirs.get(key)})" for key in apart]


def lines_of(document: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """A title, headings and rows of text for every (data set, backbone) of a reproduced table."""
    blocks = []
    pairs = dict.fromkeys((row["dataset"], row["backbone"]) for row in document["rows"])
    for dataset, backbone in pairs:
        rows = [row for row in document["rows"] if (row["dataset"], row["backbone"]) == (dataset, backbone)]
        columns = [
            (name, part)
            for name in dict.fromkeys(name for row in rows for name in row["metrics"])
            for part in PARTS
            if any(row["metrics"].get(name, {}).get(part) is not None for row in rows)
        ]
        headings = ["row", "trainable", "seeds", *(f"{name} {PARTS[part]}".strip() for name, part in columns)]
        body = [[*_first_cells(row), *(_text(row, *column) for column in columns)] for row in rows]
        blocks.append((f"{document['table']}: {dataset}, {backbone}", headings, body))
    return blocks


PARTS = {"mean": "", "shuffled": "shuffled", "change": "against full", "paper": "paper", "difference": "difference"}
"""Parts of a metric's cell → what their column is called; a part that no row has gets no column."""


def _first_cells(row: dict[str, Any]) -> list[str]:
    trainable = "" if row["trainable"] is None else f"{row['trainable']:,}"
    return [row["row"], trainable, str(len(row["seeds"]))]


def _text(row: dict[str, Any], name: str, part: str) -> str:
    cell = row["metrics"].get(name)
    if row.get("reason"):
        return "—"
    if cell is None or cell[part] is None:
        return ""
    spread = cell["std"] if part == "mean" else None
    return show(name, cell[part], spread=spread, signed=part in ("change", "difference"))


def paper_lines(table: str) -> tuple[list[str], list[list[str]]]:
    """The paper's own table as printed; for Tables 4 and 5 with the change against the full adapter in brackets."""
    original = TABLES[table]
    headings = ["the paper", *(f"{dataset} {metric}" for dataset, metric in original.columns)]
    full = original.rows[-1] if table in ("table4", "table5") else None
    body = []
    for row in original.rows:
        cells = []
        for column in original.columns:
            value, metric = row.cells.get(column), column[1]
            text = "" if value is None else show(metric, fraction(metric, value))
            if value is not None and full is not None and row is not full:
                text += f" ({show(metric, fraction(metric, value - full.cells[column]), signed=True)})"
            cells.append(text)
        body.append([row.model + ("*" if row.starred else ""), *cells])
    return headings, body


def markdown(document: dict[str, Any]) -> str:
    """The table as Markdown: ours beside the paper's, what differs, and the paper's own table."""
    parts = []
    for title, headings, body in [*lines_of(document), (document["caption"], *paper_lines(document["table"]))]:
        rule = "|---|" + "---:|" * (len(headings) - 1)
        parts.append("\n".join([f"### {title}", "", f"| {' | '.join(headings)} |"]))
        parts[-1] += "\n" + "\n".join([rule, *(f"| {' | '.join(line)} |" for line in body)])
    notes = [f"- {line}" for line in document["footnotes"]]
    notes += [f"- {row['row']} —: {row['reason']}" for row in document["rows"] if row.get("reason")]
    warned = [f"- **Warning:** {line}" for line in document["warnings"]]
    apart = ["**Not as in the paper:**", *(f"- {line}" for line in document["differs"])]
    blocks = [*parts[:-1], "\n".join(warned), "\n".join(apart), parts[-1], "\n".join(notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def draw(document: dict[str, Any], reporter: Reporter) -> None:
    """Show the table, ours beside the paper's, and what differs."""
    blocks = [*lines_of(document), (f"the paper: {document['caption']}", *paper_lines(document["table"]))]
    for title, headings, body in blocks:
        reporter.show(table_of(headings, body, title, numbers_from=1))
    for row in document["rows"]:
        if row.get("reason"):
            reporter.show(f"{row['row']} on {row['dataset']} —: {row['reason']}")
    for line in document["warnings"]:
        reporter.warn(line)
    reporter.show(*(f"not as in the paper: {line}" for line in document["differs"]), *document["footnotes"])
