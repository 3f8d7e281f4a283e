"""`msekit sensitivity RUN`: a trained run tested with other wordings of its prompt and other orders of the labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def sensitivity_command(
    run: Annotated[Path, typer.Argument(help="A seed's folder, or a folder that holds one seed.")],
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Which samples.")] = "test",
    orders: Annotated[int, typer.Option(min=0, help="Other orders of the labels (emotions).")] = 3,
    source: Annotated[Path | None, typer.Option(help="Features elsewhere than where the run found them.")] = None,
    fmt: Annotated[Literal["table", "json"], typer.Option("--format", help="json goes to stdout.")] = "table",
) -> None:
    """Test a run with other wordings of its prompt and other orders of the labels."""
    from msekit.reporter import Reporter
    from msekit.reports.summary import show_cases
    from msekit.studies.sensitivity import sensitivity

    reporter = Reporter()
    report = sensitivity(run, split, orders, source=source, reporter=reporter)
    if fmt == "json":
        typer.echo(json.dumps(report, ensure_ascii=False, indent=1))
        return
    named = {f"{name}: {report['prompts'][name]}": metrics for name, metrics in report["metrics"].items()}
    show_cases("prompt", report | {"metrics": named}, reporter.console)
    for metric, found in report["spread"].items():
        reporter.note(f"{metric}: {found['min']:.4f} to {found['max']:.4f}, deviation {found['std']:.4f}")
