"""`msekit compare A B`: the difference between two sets of runs, with intervals and p-values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msekit.cli.output import Format, answer


def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A", help="Run folder: a seed's, or one with seed-*/ folders.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Likewise; differences are B - A.")],
    repeats: Annotated[int, typer.Option(min=1, help="Resamples.")] = 1000,
    fmt: Format = "table",
) -> None:
    """Compare two sets of runs on the same test samples."""
    from msekit.reporter import Reporter
    from msekit.reports.compare import compare, show_comparison

    document = compare(first, second, repeats)
    answer(fmt, document, lambda: show_comparison(document, Reporter()))
