"""`msekit verify-backbone RUN`: proof that the plug-in left the LLM alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msekit.cli.output import Format, answer

if TYPE_CHECKING:
    from msekit.reporter import Reporter


def verify_backbone_command(
    run: Annotated[Path, typer.Argument(help="A seed's folder, or a folder that holds one seed.")],
    fmt: Format = "table",
) -> None:
    """Check that the LLM's weights and its answers to plain text are untouched; exit code 1 if they are not."""
    from msekit.reporter import Reporter
    from msekit.runs.folder import find_run

    run = find_run(run)  # before libraries load
    from msekit.studies.verify_backbone import verify_backbone

    reporter = Reporter()
    evidence = verify_backbone(run, reporter)
    answer(fmt, evidence, lambda: _show(evidence, reporter))
    if not evidence["intact"]:
        raise typer.Exit(1)


def _show(evidence: Mapping[str, Any], reporter: Reporter) -> None:
    from msekit.reporter import table_of

    source, now, training = evidence["source"], evidence["weights_now"], evidence["weights_in_training"]
    words = {True: "equal", False: "DIFFERENT"}
    identical = [line["identical"] for line in evidence["prompts"]]
    in_training = "the run is unfinished or does not say"
    if training is not None:
        in_training = words[training["before"] == training["after"]]
    configuration, then = evidence["configuration"], "the run does not say"
    if configuration["trained_on"] is not None:
        then = words[configuration["trained_on"] == configuration["found"]]
    rows = [
        ("source weights, then and now", words[source["trained_on"] == source["found"]]),
        ("configuration and tokenizer, then and now", then),
        ("weights before and after training", in_training),
        ("weights before and after using the plug-in", words[now["before"] == now["after"]]),
        ("plain prompts answered alike with the plug-in attached", f"{sum(identical)} of {len(identical)}"),
    ]
    verdict = "The LLM is intact." if evidence["intact"] else "The LLM is NOT what it was."
    reporter.show(table_of(("check", "outcome"), rows), verdict)
