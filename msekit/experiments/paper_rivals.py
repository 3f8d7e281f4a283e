"""Rows of Tables 2 and 3 that are baselines here: made on the same data, put beside the paper's rows of their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit import paper
from msekit.baselines.catalogue import BASELINES
from msekit.errors import MsekitError, nearest
from msekit.evaluation.units import fraction
from msekit.experiments.paper_runs import TABLES, TASKS
from msekit.experiments.paper_table import TASK_METRICS
from msekit.reporter import Reporter

if TYPE_CHECKING:
    from msekit.experiments.baseline_table import Request


def names_of(asked: str | None, table: str, text_from: str = "words") -> tuple[str, ...]:
    """`all`, or names of baselines, comma-separated; none where nothing is asked for.

    Raises:
        MsekitError: A name that is none, a table that has no such rows, or a text for no baselines.
    """
    if not asked:
        if text_from != "words":
            raise MsekitError("it is what baselines read", where="--text-from", fix="Name some: --baselines all.")
        return ()
    if table not in TASKS:
        raise MsekitError(f"{table} has no rows of baselines", where="--baselines", fix="Use table2 or table3.")
    if asked == "all":
        return tuple(BASELINES)
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in names:
        if name not in BASELINES:
            raise MsekitError(f"unknown baseline '{name}'", where="--baselines", fix=nearest(name, (*BASELINES, "all")))
    return names


def add_baselines(
    document: dict[str, Any], backbone: str, request: Request, folder: Path, reporter: Reporter, run: bool
) -> list[str]:
    """Run what is missing of the baselines, and put their rows into a reproduced table.

    Args:
        document: As `reproduced` gives it; its rows, warnings and what differs are added to.
        backbone: Under whose rows they stand.
        request: Which baselines, on which data set.
        folder: The table's.
        reporter: Where progress goes.
        run: False to show what is finished.

    Returns:
        What broke off, a line each.
    """
    from msekit.experiments.baseline_table import of_group, run_all  # torch; names are looked at before it loads

    rows = run_all(request, folder, reporter, run)
    for row in rows:
        printed = BASELINES[row.name].row
        line: dict[str, Any] = {"row": row.name, "key": row.name, "dataset": request.spec.name, "backbone": backbone}
        line |= {"seeds": [], "trainable": None, "metrics": {}, "reason": row.reason, "selected_on": "validation"}
        if row.group is not None:
            found = of_group(row.group)
            line |= {"row": f"{row.name} ({found['reads']})", "seeds": found["seeds"], "reads": found["reads"]}
            line |= {"trainable": found["trainable"], "minutes": found["minutes"]}
            cells = paper.table_cells(TABLES[document["table"]], printed or "")
            published = {m: fraction(m, value) for (d, m), value in cells.items() if d == request.spec.name}
            wanted = dict.fromkeys((*TASK_METRICS[request.spec.task], *published))
            line["metrics"] = {
                name: _cell(found["metrics"][name], published.get(name)) for name in wanted if name in found["metrics"]
            }
            document["warnings"] += [f"{row.name} on {request.spec.name}: {one}" for one in row.group.warnings]
            if found["apart"]:
                document["differs"].append(f"{row.name}: {found['apart']}")
        document["rows"].append(line)
    said = ["baselines: the epoch selected on validation; several of the released codes select it on the test split"]
    if request.epochs != (usual := type(request).epochs):
        said.append(f"baselines: epochs at most: {request.epochs}, by --epochs; {usual} without it")
    if request.text.context and request.text.kind != "backbone":
        said.append("what reads words or a file's features reads each utterance alone, not what came before it")
    document["footnotes"] += [note for note in said if note not in document["footnotes"]]
    return [line for row in rows for line in row.broken_off]


def _cell(summary: dict[str, float | None], printed: float | None) -> dict[str, float | None]:
    difference = None if printed is None or summary["mean"] is None else summary["mean"] - printed
    return {**summary, "change": None, "paper": printed, "difference": difference}
