"""Options that several commands share: those that describe a data set of one's own, and `train`'s many."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from msekit.errors import MsekitError

Labels = Annotated[str | None, typer.Option(help="Class names in the order of their numbers: joy,anger,…")]
Range = Annotated[str | None, typer.Option("--range", help="Lowest and highest intensity: -3,3.")]
Language = Annotated[str | None, typer.Option(help="Language of the prompt: en or zh.")]
Prompt = Annotated[str | None, typer.Option(help="Task prompt in your own words.")]

Recipe = Annotated[
    str | None,
    typer.Option(help="paper (exact; its pairs' default), kit (hears the audio), best (kit and what measured better)."),
]
Profile = Annotated[str | None, typer.Option(help="The machine: rtx4090, cpu, h100, …, or a file of yours.")]
Layout = Annotated[
    Literal["paper", "prompt-first"] | None, typer.Option(help="Task prompt last (paper), or first: quicker.")
]
OnMissing = Annotated[
    str | None, typer.Option(help="Samples that lack a modality: zero, learned, drop or error [zero].")
]
Context = Annotated[int | None, typer.Option(help="Previous utterances of the dialogue before the text [0].")]

Launch = Annotated[str | None, typer.Option(help="Run in several processes: ddp, zero1, zero2, zero3, … or a file.")]
NumProcesses = Annotated[int | None, typer.Option(min=1, help="Processes over all machines [one per GPU].")]
NumMachines = Annotated[int, typer.Option(min=1, help="Machines; give this command on each.")]
MachineRank = Annotated[int, typer.Option(min=0, help="Number of this machine, from 0.")]
MainAddress = Annotated[str | None, typer.Option(help="HOST:PORT on machine 0, reachable from all.")]


def description(labels: str | None, span: str | None, language: str | None, prompt: str | None) -> dict[str, Any]:
    """What the options say, as keys of a data set's description; None where one was not given.

    Raises:
        MsekitError: A range that is not two numbers, an empty class name.
    """
    names = tuple(part.strip() for part in labels.split(",")) if labels is not None else None
    if names is not None and not all(names):
        raise MsekitError(f"--labels takes names, not '{labels}'", fix="For example --labels joy,anger,sadness.")
    numbers = None
    if span is not None:
        try:
            low, high = (float(part) for part in span.split(","))
        except ValueError:
            raise MsekitError(f"--range takes two numbers, not '{span}'", fix="For example --range -3,3.") from None
        numbers = (low, high)
    return {"labels": names, "range": numbers, "language": language, "prompt": prompt}
