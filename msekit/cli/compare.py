"""`msekit compare A B`: the difference between two sets of runs, with intervals and p-values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A", help="Run folder: a seed's, or one with seed-*/ folders.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Likewise; differences are B - A.")],
    repeats: Annotated[int, typer.Option(min=1, help="Resamples.")] = 1000,
    fmt: Annotated[Literal["table", "json"], typer.Option("--format", help="json goes to stdout.")] = "table",
) -> None:
    """Compare two sets of runs on the same test samples."""
    from msekit.reporter import Reporter
    from msekit.reports.compare import compare, show_comparison

    document = compare(first, second, repeats)
    if fmt == "json":
        typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        show_comparison(document, Reporter().console)
