"""`msekit report RUN…`: mean ± standard deviation over seeds, beside the paper's row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: a seed's, or one that holds seed-*/ folders.")],
    fmt: Annotated[
        Literal["table", "markdown", "json"],
        typer.Option("--format", help="table goes to the terminal (stderr); markdown and json to stdout."),
    ] = "table",
) -> None:
    """Summarise finished runs over their seeds, beside the paper's numbers."""
    from rich.console import Console
    from rich.markup import escape

    from msekit.evaluation.report import aggregate, collect, find_runs, render_json, render_markdown, render_table

    groups = aggregate(collect(runs))
    console = Console(stderr=True)
    if fmt == "json":
        typer.echo(render_json(groups))
    elif fmt == "markdown":
        typer.echo(render_markdown(groups), nl=False)
    else:
        render_table(groups, console)
    for folder in (folder for run in runs for folder in find_runs(run)[1]):
        console.print(f"[yellow]Warning:[/yellow] {escape(str(folder))} is unfinished and left out", soft_wrap=True)
