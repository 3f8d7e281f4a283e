"""`msekit doctor`: what this machine has, what is missing for which feature, and a two-process self-test."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def doctor_command(
    self_test: Annotated[bool, typer.Option(help="Start two processes and let them exchange numbers.")] = True,
    fmt: Annotated[
        Literal["table", "json"], typer.Option("--format", help="table goes to the terminal; json to stdout.")
    ] = "table",
) -> None:
    """Report devices, drivers, communication, versions, a compiler, and which launch configurations can run here."""
    from msekit.doctor import examine, show
    from msekit.reporter import Reporter

    reporter = Reporter()
    with reporter.status("looking around"):
        found = examine(self_test)
    if fmt == "json":
        typer.echo(json.dumps(found, indent=1))
    else:
        show(found, reporter)
    if found["self_test"] is not None and not found["self_test"]["passed"]:
        raise typer.Exit(1)
