"""`msekit verify-backbone RUN`: proof that the plug-in left the LLM alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def verify_backbone_command(
    run: Annotated[Path, typer.Argument(help="A seed's folder, or a folder that holds one seed.")],
    fmt: Annotated[Literal["table", "json"], typer.Option("--format", help="json goes to stdout.")] = "table",
) -> None:
    """Check that the LLM's weights and its answers to plain text are untouched; exit code 1 if they are not."""
    from msekit.reporter import Reporter
    from msekit.studies.verify_backbone import verify_backbone

    reporter = Reporter()
    evidence = verify_backbone(run, reporter)
    if fmt == "json":
        typer.echo(json.dumps(evidence, ensure_ascii=False, indent=1))
    else:
        source, now, training = evidence["source"], evidence["weights_now"], evidence["weights_in_training"]
        same = {True: "equal", False: "DIFFERENT"}
        reporter.note(f"source weights, then and now: {same[source['trained_on'] == source['found']]}")
        if training is None:
            reporter.note("weights before and after training: the run is unfinished or does not say")
        else:
            reporter.note(f"weights before and after training: {same[training['before'] == training['after']]}")
        reporter.note(f"weights before and after using the plug-in: {same[now['before'] == now['after']]}")
        identical = [line["identical"] for line in evidence["prompts"]]
        reporter.note(f"plain prompts answered alike with the plug-in attached: {sum(identical)} of {len(identical)}")
        reporter.note("The LLM is intact." if evidence["intact"] else "The LLM is NOT what it was.")
    if not evidence["intact"]:
        raise typer.Exit(1)
