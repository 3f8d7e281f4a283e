"""All baselines on one data set → one table: mean ± deviation over seeds, shuffled, parameters, minutes, what it read.

Every run keeps a folder of its own, `<output>/<dataset>-<baseline>/seed-<seed>/`, so what is finished is never made
again. Runs go seed by seed: after the first seed every row has a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msekit.backbones.precision import default_device
from msekit.baselines.catalogue import BASELINES, READS_LLM, needs_llm
from msekit.baselines.finished import folder_name
from msekit.baselines.rival_data import cannot_serve
from msekit.baselines.run import run_baseline
from msekit.baselines.texts import TextFrom
from msekit.data.catalogue import DatasetSpec
from msekit.data.open_data import open_data
from msekit.errors import StoppedError, UnfinishedRunError
from msekit.evaluation.units import show
from msekit.experiments.paper_table import TASK_METRICS
from msekit.reporter import Reporter, table_of
from msekit.reports.aggregate import Group, aggregate
from msekit.runs.files import REPORT
from msekit.runs.report import collect

DASH = "—"


@dataclass(frozen=True)
class Request:
    """Which baselines, on what, how."""

    names: tuple[str, ...]
    spec: DatasetSpec
    text: TextFrom
    """What networks read of a text; `llm-linear` takes the backbone, the context and the limit from it."""
    seeds: tuple[int, ...]
    epochs: int = 30
    limit_train: int | None = None

    def text_of(self, name: str) -> TextFrom:
        """What one of them reads."""
        if name == READS_LLM:
            return TextFrom(backbone=self.text.backbone, context=self.text.context, limit=self.text.limit)
        if needs_llm(name):
            return TextFrom(backbone=self.text.backbone)
        if BASELINES[name].network is None:
            return TextFrom()
        if self.text.kind != "backbone":
            return TextFrom(self.text.kind)
        return self.text if BASELINES[name].level == "sentence" else replace(self.text, sentence="last")

    def run(self, name: str, folder: Path, reporter: Reporter, seeds: Sequence[int] | None = None) -> None:
        """Train what is missing of one baseline."""
        for seed in self.seeds if seeds is None else seeds:
            place = folder / f"seed-{seed}"
            run_baseline(
                name,
                self.spec,
                seed,
                place,
                text=self.text_of(name),
                epochs=self.epochs,
                limit_train=self.limit_train,
                reporter=reporter,
            )
            reporter.note(f"run folder: {place}")


@dataclass(frozen=True)
class Row:
    """One baseline's result, or why there is none."""

    name: str
    group: Group | None
    reason: str | None = None
    broken_off: tuple[str, ...] = ()
    """What its seeds broke off with (a loss that is not finite)."""


def folder_of(around: Path, name: str, request: Request) -> Path:
    """Where a baseline's seeds lie."""
    text = request.text_of(name)
    return around / folder_name(request.spec.name, name, text.backbone, text.kind, text.context)


def run_all(request: Request, around: Path, reporter: Reporter, run: bool = True) -> list[Row]:
    """Train what is missing, seed by seed; a baseline that the data set cannot serve is passed over.

    Args:
        request: Which baselines, on what.
        around: The folder of their runs.
        reporter: Where progress goes.
        run: False to look at what is finished alone.

    Raises:
        MsekitError: The data are unusable, or a finished run was made with other settings.
    """
    reasons = unserved(request, reporter)
    served = [name for name in request.names if name not in reasons]
    broken: dict[str, list[str]] = {}
    for seed in request.seeds if run else ():
        for name in served:
            try:
                request.run(name, folder_of(around, name, request), reporter, [seed])
            except StoppedError:
                raise
            except UnfinishedRunError as error:
                broken.setdefault(name, []).append(f"seed {seed}: {error.what}")
                reporter.warn(str(error))
    rows = []
    for name in request.names:
        seeds = [folder_of(around, name, request) / f"seed-{seed}" for seed in request.seeds]
        done = [folder for folder in seeds if (folder / REPORT).is_file()] if name in served else []
        groups = aggregate(collect(done)) if done else []
        rows.append(Row(name, groups[0] if groups else None, reasons.get(name), tuple(broken.get(name, ()))))
    return rows


def unserved(request: Request, reporter: Reporter) -> dict[str, str]:
    """Baseline → what it needs and the data set or the request lacks."""
    spec, cache = open_data(request.spec, "float32", reporter)
    found = {name: cannot_serve(BASELINES[name], spec, cache) for name in request.names}
    for name in filter(needs_llm, request.names):
        if request.text.backbone is None:
            found[name] = "it reads an LLM, and no --backbone is named"
        elif BASELINES[name].level == "llm" and default_device().type == "cpu" and {*request.names} >= {*BASELINES}:
            found[name] = "it trains through the LLM, which takes hours on a CPU: ask for it by name"
    return {name: reason for name, reason in found.items() if reason is not None}


def document_of(request: Request, rows: list[Row]) -> dict[str, Any]:
    """All that the table needs.

    Returns:
        `{"dataset", "task", "seeds", "selected_on", "rows", "warnings"}`; a row: `{"row", "reads", "apart", "reason",
        "seeds", "trainable", "minutes", "metrics": {name: {"mean", "std", "shuffled"}}}`, metrics as fractions.
    """
    lines, warnings = [], []
    for row in rows:
        line: dict[str, Any] = {"row": row.name, "reads": None, "apart": BASELINES[row.name].apart or None}
        line |= {"reason": row.reason, "seeds": [], "trainable": None, "minutes": None, "metrics": {}}
        if row.group is not None:
            line |= of_group(row.group)
            warnings += [f"{row.name}: {warning}" for warning in row.group.warnings]
        warnings += [f"{row.name}, {line}" for line in row.broken_off]
        lines.append(line)
    return {
        "dataset": request.spec.name,
        "task": request.spec.task,
        "seeds": list(request.seeds),
        "selected_on": "validation",
        "rows": lines,
        "warnings": warnings,
    }


def of_group(group: Group) -> dict[str, Any]:
    """A finished row's cells."""
    reports = [member.report for member in group.members]
    seconds = [report.train_seconds or 0.0 for report in reports]
    return {
        "reads": reads(group),
        "apart": reports[0].apart,
        "seeds": group.seeds,
        "trainable": reports[0].trainable_parameters,
        "minutes": sum(seconds) / len(seconds) / 60,
        "metrics": {
            name: {"mean": one.mean, "std": one.std, "shuffled": one.shuffled} for name, one in group.metrics.items()
        },
    }


def reads(group: Group) -> str:
    """What a baseline read of a text, in words."""
    report = group.members[0].report
    before = f", {report.context} before" if report.context else ""
    if report.adapter == READS_LLM:
        return f"{report.backbone}, layer {report.layer}{before}"
    if report.text_from == "llm":
        return f"{report.backbone}, trained through"
    if report.text_from == "backbone":
        whole = f", {report.text_sentence}" if report.text_sentence else ""
        return f"{report.backbone}, layer {report.text_layer}{whole}{before}"
    return report.text_from or "words"


def draw(document: dict[str, Any], reporter: Reporter) -> None:
    """Show the table, and below it why a row has a dash and what is otherwise than in its paper."""
    headings, body = lines_of(document)
    title = f"baselines on {document['dataset']}: test, the epoch selected on validation"
    caption = f"seeds {', '.join(map(str, document['seeds']))}: mean ± standard deviation; minutes a run"
    reporter.show(table_of(headings, body, title, caption=caption, numbers_from=2))
    for row in document["rows"]:
        if row["reason"]:
            reporter.show(f"{row['row']} {DASH}: {row['reason']}")
    for row in document["rows"]:
        if row["apart"]:
            reporter.show(f"{row['row']}: not as in its paper: {row['apart']}")
    for warning in document["warnings"]:
        reporter.warn(warning)


def label_of(group: Group) -> str:
    """A row's label in words: how it was selected, what it read, what trains, what is otherwise than in its paper."""
    found = of_group(group)
    selected = "the epoch" if BASELINES[group.members[0].report.adapter].network else "layer or strength"
    parts = [f"{selected} selected on validation", f"text: {found['reads']}"]
    parts += [f"{found['trainable']:,} trainable parameters"] if found["trainable"] else []
    parts += [f"not as in its paper: {found['apart']}"] if found["apart"] else []
    return "; ".join(parts)


def lines_of(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text."""
    metrics = TASK_METRICS[document["task"]]
    headings = ["baseline", "text", *metrics, f"{metrics[-1]} shuffled", "trainable", "minutes"]
    body = []
    for row in document["rows"]:
        if not row["metrics"]:
            body.append([row["row"], *[DASH] * (len(headings) - 1)])
            continue
        cells = [show(name, row["metrics"][name]["mean"], spread=row["metrics"][name]["std"]) for name in metrics]
        shuffled = row["metrics"][metrics[-1]]["shuffled"]
        cells.append(DASH if shuffled is None else show(metrics[-1], shuffled))
        fewer = len(row["seeds"]) < len(document["seeds"])
        name = f"{row['row']} ({len(row['seeds'])} of {len(document['seeds'])} seeds)" if fewer else row["row"]
        body.append([name, row["reads"], *cells, f"{row['trainable'] or 0:,}", f"{row['minutes']:.1f}"])
    return headings, body


def markdown(document: dict[str, Any]) -> str:
    """The table as Markdown, with reasons and deviations."""
    headings, body = lines_of(document)
    lines = [f"| {' | '.join(headings)} |", "|---|---|" + "---:|" * (len(headings) - 2)]
    lines += [f"| {' | '.join(line)} |" for line in body]
    for row in document["rows"]:
        if row["reason"]:
            lines.append(f"\n- {row['row']} {DASH}: {row['reason']}")
    notes = [f"- {row['row']}: {row['apart']}" for row in document["rows"] if row["apart"]]
    warned = [f"- **Warning:** {line}" for line in document["warnings"]]
    return "\n".join([*lines, "", *notes, *warned]) + "\n"
