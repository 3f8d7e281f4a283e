"""`msekit doctor`: what this machine has, what is missing for which feature, and a two-process self-test."""

from __future__ import annotations

from typing import Annotated

import typer

from msekit.cli.output import Format, answer


def doctor_command(
    self_test: Annotated[bool, typer.Option(help="Start two processes and let them exchange numbers.")] = True,
    fmt: Format = "table",
) -> None:
    """Report devices, drivers, communication, versions, a compiler, and which launch configurations can run here."""
    from msekit.doctor import examine, show
    from msekit.reporter import Reporter

    reporter = Reporter()
    with reporter.status("looking around"):
        findings = examine(self_test)
    answer(fmt, findings, lambda: show(findings, reporter))
    if findings["self_test"] is not None and not findings["self_test"]["passed"]:
        raise typer.Exit(1)
