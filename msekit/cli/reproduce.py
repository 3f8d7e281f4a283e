"""`msekit reproduce TABLE`: plan the runs of a table of the paper, run what is missing, print ours beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli import options
from msekit.errors import MsekitError, UnfinishedRunError

if TYPE_CHECKING:
    from msekit.experiments.paper_runs import Experiment
    from msekit.reporter import Reporter


def reproduce(
    table: Annotated[Literal["table2", "table3", "table4", "table5"], typer.Argument(help="Table of the paper.")],
    backbone: Annotated[list[str] | None, typer.Option(help="Backbones [the paper's].")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Data sets, names or YAMLs [the paper's].")] = None,
    source: Annotated[Path | None, typer.Option(help="Folder or file of the published features.")] = None,
    recipe: options.Recipe = None,
    layout: options.Layout = None,
    profile: options.Profile = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "1111,2222,3333,4444,5555",
    epochs: Annotated[int | None, typer.Option(help="Epochs of the schedule.")] = None,
    limit_train: Annotated[int | None, typer.Option(help="Train on this many samples.")] = None,
    output: Annotated[Path | None, typer.Option(help="Output folder [runs/<table>].")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Any setting: optim.lr=1e-4.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Show the runs and their cost, run nothing.")] = False,
    only_report: Annotated[bool, typer.Option("--report", help="Show what is finished, run nothing.")] = False,
    fmt: Annotated[
        Literal["table", "markdown", "json"], typer.Option("--format", help="markdown and json go to stdout.")
    ] = "table",
) -> None:
    """Make a table of the paper: ours beside its numbers. The same command goes on where it stopped."""
    from msekit.experiments.paper_runs import experiments, run_missing
    from msekit.experiments.paper_table import reproduced
    from msekit.reporter import Reporter
    from msekit.settings.plan_runs import plan_runs

    reporter = Reporter()
    folder = (output or Path("runs") / table).resolve()
    found = experiments(table, backbone or [], dataset or [])
    for key in (key for key in overrides or [] if key.startswith(("adapter.name=", "adapter.ablate="))):
        raise MsekitError(f"--set {key}: that is what makes the rows of a table", fix="`msekit train` makes one run.")
    if source is not None and len({each.dataset for each in found}) > 1:
        raise MsekitError("--source names the files of one data set", fix="Name the data set with --dataset.")
    common: dict[str, Any] = {
        "source": source and source.resolve(),
        "recipe": recipe,
        "layout": layout,
        "profile": profile,
        "optim": {"epochs": epochs},
        "data": {"limit_train": limit_train},
    }
    for each in found:
        given = common | each.settings(folder)
        each.runs, _ = plan_runs(given, None, seeds, overrides or [])
    if not only_report:
        _show_cost(found, reporter)
    if dry_run:
        return
    broken_off: list[str] = []
    if not only_report:
        try:
            broken_off = run_missing(found, reporter)
        except KeyboardInterrupt:
            reporter.note("stopped; continue with the same command")
            raise typer.Exit(130) from None
    _show(reproduced(table, found), fmt, reporter)
    if broken_off:
        raise UnfinishedRunError(f"{len(broken_off)} of the runs broke off, as said above", where=folder)


def _show_cost(found: list[Experiment], reporter: Reporter) -> None:
    """The runs, those that are left, and what they take at most."""
    from rich.markup import escape
    from rich.table import Table

    from msekit.data.open_data import open_data
    from msekit.experiments.paper_runs import cost
    from msekit.settings.data_of import spec_of

    sizes: dict[str, int] = {}

    def samples(run: Any) -> int:
        if run.dataset not in sizes:
            spec = spec_of(run)
            if spec.split_sizes:
                sizes[run.dataset] = spec.split_sizes[0]
            else:
                sizes[run.dataset] = open_data(spec, run.data.dtype, reporter)[1].info.splits["train"].samples
        return min(sizes[run.dataset], run.data.limit_train or sizes[run.dataset])

    lines = cost(found, samples)
    table = Table("row", "data set", "backbone", "finished", "samples left, at most", "hours left, at most")
    for line in lines:
        hours = "unknown before a first run" if line["hours"] is None else f"{line['hours']:.1f}"
        done = f"{line['finished']} of {line['runs']}"
        cells = (line["row"], Path(line["dataset"]).stem, line["backbone"], done, f"{line['samples']:,}", hours)
        table.add_row(*map(escape, cells))
    reporter.console.print(table)
    known = [line["hours"] for line in lines if line["hours"] is not None]
    if len(known) == len(lines):
        reporter.note(f"{sum(known):.1f} hours left at the speed of the finished runs, if no run stops early")


def _show(document: dict[str, Any], fmt: str, reporter: Reporter) -> None:
    """The finished table: drawn on stderr's console, or as markdown or json on stdout."""
    from msekit.experiments.paper_table import draw, markdown

    if fmt == "json":
        typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
    elif fmt == "markdown":
        typer.echo(markdown(document), nl=False)
    else:
        draw(document, reporter.console)
