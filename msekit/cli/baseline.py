"""`msekit baseline NAME|all --dataset D`: simpler models and the paper's rivals on the same cache and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from msekit.baselines.catalogue import BASELINES, READS_LLM, check_text
from msekit.cli import options
from msekit.cli.output import Format, answer
from msekit.errors import UnfinishedRunError, choice

ALL = "all"


def baseline_command(
    name: Annotated[str, typer.Argument(help=f"Which model: {choice(BASELINES)}; or {ALL}.")],
    dataset: Annotated[str, typer.Option(help="Catalogue name, or a YAML describing your own.")],
    source: Annotated[Path | None, typer.Option(help="Folder or file of the published features.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help=f"The frozen LLM that {READS_LLM} reads, and others by --text-from backbone.")
    ] = None,
    text_from: options.TextFrom = "words",
    text_layer: Annotated[int | None, typer.Option(min=0, help="The LLM's layer [at two thirds of its depth].")] = None,
    sentence: Annotated[
        Literal["last", "mean"], typer.Option(help="A whole text as one state: of its last token, or the mean.")
    ] = "last",
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "1111",
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs.")] = 30,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Train on this many samples.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder [runs/<dataset>-<name>, with the text's origin if not words].")
    ] = None,
    fmt: Format = "table",
) -> None:
    """Train and test a baseline: a linear model, a classical network or one of the paper's rivals; or all of them.
    Finished seeds are reused, an unfinished one goes on behind its last epoch."""
    if name != ALL:
        check_text(name, backbone, text_from, sentence)
    from msekit.baselines.texts import TextFrom
    from msekit.data.catalogue import resolve_dataset
    from msekit.experiments.baseline_table import Request, document_of, draw, folder_of, label_of, run_all
    from msekit.reporter import Reporter
    from msekit.reports.aggregate import aggregate
    from msekit.reports.render import as_json, render_table
    from msekit.runs.report import collect
    from msekit.settings.plan_runs import parse_seeds

    reporter = Reporter()
    spec = resolve_dataset(dataset, source)
    text = TextFrom(text_from, backbone, text_layer, sentence)
    names = tuple(BASELINES) if name == ALL else (name,)
    request = Request(names, spec, text, tuple(parse_seeds(seeds)), epochs, limit_train)
    around = output.resolve() if output else Path("runs").resolve()
    if name == ALL:
        rows = run_all(request, around, reporter)
        document = document_of(request, rows)
        answer(fmt, document, lambda: draw(document, reporter))
        if broken_off := sum(len(row.broken_off) for row in rows):
            raise UnfinishedRunError(f"{broken_off} of the runs broke off, as said above", where=around)
        return
    folder = around if output else folder_of(around, name, request)
    request.run(name, folder, reporter)
    groups = aggregate(collect([folder]))
    answer(fmt, [as_json(group) for group in groups], lambda: render_table(groups, reporter))
    if fmt == "table":
        reporter.show(*(label_of(group) for group in groups))
