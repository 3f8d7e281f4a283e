"""`msekit report RUN…`: mean ± standard deviation over seeds, beside the paper's row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from msekit.errors import MsekitError, shown
from msekit.words import reason


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: a seed's, or one that holds seed-*/ folders.")],
    fmt: Annotated[
        Literal["table", "markdown", "json", "html"],
        typer.Option("--format", help="On stdout; all but a table also into --output."),
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="File for markdown, json or html.")] = None,
) -> None:
    """Summarise finished runs over their seeds, beside the paper's numbers."""
    from msekit.reporter import Reporter
    from msekit.reports.aggregate import aggregate
    from msekit.reports.beside import bars
    from msekit.reports.render import render_json, render_markdown, render_table
    from msekit.runs.folder import find_runs
    from msekit.runs.report import collect

    reporter = Reporter()
    beside = bars(collect(runs))
    for folder in beside:
        reporter.note(f"llm-linear on the same backbone and data: {folder}")
    reported = [*runs, *beside]
    groups = aggregate(collect(reported))
    if fmt == "table":
        if output is not None:
            raise MsekitError("a table goes to the terminal, not to a file", fix="Add --format markdown, json or html.")
        render_table(groups, reporter)
    else:
        if fmt == "html":
            from msekit.reports.html import html_report

            text = html_report(reported)
        else:
            text = render_json(groups) + "\n" if fmt == "json" else render_markdown(groups)
        if output is None:
            typer.echo(shown(text, "\n\t"), nl=False)
        else:
            write(output, text)
            reporter.note(f"report: {output}")
    for folder in (folder for run in runs for folder in find_runs(run)[1]):
        reporter.warn(f"{folder} is unfinished and left out")


def write(file: Path, text: str) -> None:
    """Write a report's file.

    Raises:
        MsekitError: It cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MsekitError(f"the report cannot be written: {reason(error)}", where=file) from error
