"""`msekit reproduce TABLE`: plan the runs of a table of the paper, run what is missing, print ours beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli import options
from msekit.cli.output import answer
from msekit.errors import MsekitError, UnfinishedRunError

if TYPE_CHECKING:
    from rich.table import Table

    from msekit.experiments.paper_runs import Experiment
    from msekit.reporter import Reporter
    from msekit.settings.config import RunConfig
    from msekit.settings.plan_runs import RunRequest


def reproduce(
    table: Annotated[Literal["table2", "table3", "table4", "table5"], typer.Argument(help="Table of the paper.")],
    backbone: Annotated[list[str] | None, typer.Option(help="Backbones [the paper's].")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Data sets, names or YAMLs [the paper's].")] = None,
    source: options.Source = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
    recipe: options.Recipe = None,
    layout: options.Layout = None,
    profile: options.Profile = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "1111,2222,3333,4444,5555",
    epochs: Annotated[int | None, typer.Option(help="Epochs of the schedule.")] = None,
    limit_train: Annotated[int | None, typer.Option(help="Train on this many samples.")] = None,
    output: Annotated[Path | None, typer.Option(help="Output folder [runs/<table>].")] = None,
    overrides: options.Overrides = None,
    baselines: Annotated[
        str | None, typer.Option(help="Rows of baselines too (tables 2 and 3): all, or names, comma-separated.")
    ] = None,
    text_from: options.TextFrom = "words",
    dry_run: Annotated[bool, typer.Option(help="Show the runs and their cost, run nothing.")] = False,
    only_report: Annotated[bool, typer.Option("--report", help="Show what is finished, run nothing.")] = False,
    fmt: Annotated[Literal["table", "markdown", "json"], typer.Option("--format", help="All on stdout.")] = "table",
) -> None:
    """Make a table of the paper: ours beside its numbers. The same command goes on where it stopped."""
    from msekit.experiments.paper_rivals import names_of
    from msekit.reporter import Reporter
    from msekit.settings.plan_runs import RunRequest, parse_seeds

    reporter, folder = Reporter(), (output or Path("runs") / table).resolve()
    names = names_of(baselines, table, text_from)
    common = RunRequest(
        source=source.resolve() if source else None,
        own_set=options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation),
        recipe=recipe,
        layout=layout,
        profile=profile,
        epochs=epochs,
        limit_train=limit_train,
        seeds=parse_seeds(seeds),
        overrides=tuple(overrides or ()),
    )
    rows = _planned(table, backbone or [], dataset or [], common, folder)
    if dry_run:
        reporter.show(_cost_table(rows, reporter))
        return
    if not only_report:
        _look(rows)
        reporter.console.print(_cost_table(rows, reporter))
    broken_off = [] if only_report else _run(rows, reporter)
    document = _document(table, rows)
    broken_off += _add_baselines(document, rows, common, (names, text_from), folder, not only_report, reporter)
    _show(document, fmt, reporter)
    if broken_off:
        raise UnfinishedRunError(f"{len(broken_off)} of the runs broke off, as said above", where=folder)


def _planned(
    table: str, backbones: list[str], datasets: list[str], common: RunRequest, folder: Path
) -> list[Experiment]:
    """The rows of a table with their runs.

    Raises:
        MsekitError: A setting that makes the rows is given by hand, or the files of one set for several.
    """
    from msekit.data.readers.found_labels import find_set
    from msekit.experiments.paper_runs import experiments
    from msekit.settings.plan_runs import plan_runs

    described = common.own_set.settings()
    rows = experiments(table, backbones, datasets, lambda name: find_set(name, common.source, described), common.recipe)
    for key in (key for key in common.overrides if key.startswith(("adapter.name=", "adapter.ablate="))):
        raise MsekitError(f"--set {key}: that is what makes the rows of a table", fix="`msekit train` makes one run.")
    if (common.source is not None or described) and len({row.dataset for row in rows}) > 1:
        raise MsekitError("--source and what is said of its files are of one data set", fix="Name it with --dataset.")
    for row in rows:
        row.runs, _ = plan_runs(row.request(common, folder))
    return rows


def _look(rows: list[Experiment]) -> None:
    """Refuse what cannot begin, before the first run spends hours.

    Raises:
        MsekitError: See `refuse_taken` and `look_at_what_it_needs`.
    """
    from msekit.runs.go_on import refuse_taken
    from msekit.runs.look_first import look_at_what_it_needs

    for run in (run for row in rows for run in row.runs):
        refuse_taken(run, resume=True)
        look_at_what_it_needs(run)


def _run(rows: list[Experiment], reporter: Reporter) -> list[str]:
    """Run what is missing; what broke off, a line each."""
    from msekit.experiments.paper_runs import run_missing

    try:
        return run_missing(rows, reporter)
    except KeyboardInterrupt:
        reporter.note("stopped; continue with the same command")
        raise typer.Exit(130) from None


def _document(table: str, rows: list[Experiment]) -> dict[str, Any]:
    from msekit.experiments.paper_table import reproduced

    return reproduced(table, rows)


def _add_baselines(
    document: dict[str, Any],
    rows: list[Experiment],
    common: RunRequest,
    asked: tuple[tuple[str, ...], Any],
    folder: Path,
    run: bool,
    reporter: Reporter,
) -> list[str]:
    """Rows of baselines: under every backbone where they read its states, else under the first; what broke off."""
    from msekit.baselines.catalogue import needs_llm
    from msekit.baselines.texts import TextFrom
    from msekit.data.readers.found_labels import find_set
    from msekit.experiments.baseline_table import Request
    from msekit.experiments.paper_rivals import add_baselines

    names, kind = asked
    broken_off: list[str] = []
    for dataset in dict.fromkeys(row.dataset for row in rows) if names else ():
        backbones = list(dict.fromkeys(row.backbone for row in rows if row.dataset == dataset))
        for backbone in backbones:
            again = kind != "backbone" and backbone != backbones[0]  # what reads no LLM is under the first one already
            mine = tuple(name for name in names if needs_llm(name) or not again)
            if not mine:
                continue
            spec = find_set(dataset, common.source, common.own_set.settings())
            text = TextFrom(kind, backbone, **_before(rows, dataset, backbone, spec.text_limit))
            request = Request(mine, spec, text, tuple(common.seeds or ()), limit_train=common.limit_train)
            if common.epochs is not None:
                request = replace(request, epochs=common.epochs)
            try:
                broken_off += add_baselines(document, backbone, request, folder, reporter, run)
            except KeyboardInterrupt:
                reporter.note("stopped; continue with the same command")
                raise typer.Exit(130) from None
    return broken_off


def _before(rows: list[Experiment], dataset: str, backbone: str, own_limit: int) -> dict[str, Any]:
    """What the plug-in's runs read before a text, for baselines that read the LLM's states to read the same."""
    data = next(row.runs[0].data for row in rows if (row.dataset, row.backbone) == (dataset, backbone))
    return {"context": data.context, "limit": None if data.text_limit == own_limit else data.text_limit}


def _cost_table(rows: list[Experiment], reporter: Reporter) -> Table:
    """The runs, those that are left, and what they take at most; a note says how long that is."""
    from msekit.data.open_data import open_data
    from msekit.experiments.paper_runs import cost
    from msekit.patience import in_time
    from msekit.reporter import table_of
    from msekit.settings.data_of import spec_of

    sizes: dict[str, int] = {}

    def samples(run: RunConfig) -> int:
        if run.dataset not in sizes:
            spec = spec_of(run)
            if spec.split_sizes:
                sizes[run.dataset] = spec.split_sizes[0]
            else:
                sizes[run.dataset] = open_data(spec, run.data.dtype, reporter)[1].info.splits["train"].samples
        return min(sizes[run.dataset], run.data.limit_train or sizes[run.dataset])

    lines = cost(rows, samples)
    cells = []
    for line in lines:
        about = "about " if line["rough"] else ""
        hours = "unknown before a first run" if line["hours"] is None else f"{about}{in_time(3600 * line['hours'])}"
        done = f"{line['finished']} of {line['runs']}"
        cells.append((line["row"], Path(line["dataset"]).stem, line["backbone"], done, f"{line['samples']:,}", hours))
    hours_left = [line["hours"] for line in lines if line["hours"] is not None]
    if len(hours_left) == len(lines):
        how = "roughly, by how fast this machine multiplies" if any(line["rough"] for line in lines) else ""
        how = how or "at the speed of the finished runs"
        reporter.note(f"{in_time(3600 * sum(hours_left))} left, {how}, if no run stops early")
    headings = ("row", "data set", "backbone", "finished", "samples left, at most", "time left, at most")
    return table_of(headings, cells, numbers_from=4)


def _show(document: dict[str, Any], fmt: str, reporter: Reporter) -> None:
    """The finished table on stdout."""
    from msekit.experiments.paper_table import draw, markdown

    if fmt == "markdown":
        typer.echo(markdown(document), nl=False)
    else:
        answer(fmt, document, lambda: draw(document, reporter))
