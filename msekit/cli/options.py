"""Options that several commands share. Names come from the tables that hold them; nothing here imports torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from msekit.adapters.ablations import ABLATIONS
from msekit.adapters.sizes import ADAPTERS
from msekit.backbones.holding import KINDS
from msekit.errors import MsekitError, choice
from msekit.paths import shipped
from msekit.settings import choices
from msekit.settings.plan_runs import OwnSet
from msekit.settings.recipes import RECIPES


def keys(incomplete: str) -> list[tuple[str, str]]:
    """Settings whose key begins so, with what they are, for the shell."""
    from msekit.settings.schema import settings

    return [(setting.key, setting.doc) for setting in settings() if setting.key.startswith(incomplete)]


def assignments(incomplete: str) -> list[tuple[str, str]]:
    """`KEY=`, or behind a key its values where they can be listed, for the shell."""
    from msekit.settings.resolve import OPTIONS_OF_THEIR_OWN
    from msekit.settings.schema import values_of

    key, equals, begun = incomplete.partition("=")
    if equals:
        return [(f"{key}={value}", "") for value in values_of(key) if value.startswith(begun)]
    return [(f"{name}=", doc) for name, doc in keys(key) if name not in OPTIONS_OF_THEIR_OWN]


def _once_each(overrides: list[str] | None) -> list[str] | None:
    """`--set` as it was given; one setting is given once.

    Raises:
        MsekitError: A setting that is given twice, of which the first would be without effect.
    """
    counts = Counter(text.partition("=")[0] for text in overrides or ())
    if twice := [key for key, count in counts.items() if count > 1]:
        raise MsekitError(f"--set {twice[0]} is given {counts[twice[0]]} times", fix="Keep one of them.")
    return overrides


Source = Annotated[Path | None, typer.Option(help="Folder or file of the features.")]
Labels = Annotated[str | None, typer.Option(help="Class names in the order of their numbers: joy,anger,…")]
Range = Annotated[str | None, typer.Option("--range", help="Lowest and highest intensity: -3,3.")]
Language = Annotated[
    str | None, typer.Option(help="Language of the texts: en, zh, or any other with a --prompt: de, ….")
]
Prompt = Annotated[str | None, typer.Option(help="Task prompt in your own words.")]
Encoding = Annotated[str | None, typer.Option(help="Of a CSV's text: gb18030, utf-16, … [UTF-8].")]
Delimiter = Annotated[str | None, typer.Option(help="Between a CSV's cells: ';', tab [a comma].")]
Columns = Annotated[
    str | None, typer.Option(help="Which columns hold what, if called otherwise: text=Utterance,label=Emotion.")
]
Validation = Annotated[
    float | None, typer.Option(help="Share of train set apart as valid, by speaker if any, where there is none: 0.1.")
]

Recipe = Annotated[str | None, typer.Option(help=", ".join(f"{name} ({what})" for name, what in RECIPES.items()) + ".")]
PROFILES = sorted(path.stem for path in (shipped("configs") / "profiles").glob("*.yaml"))
Profile = Annotated[str | None, typer.Option(help=f"The machine: {', '.join(PROFILES)}, or a file of yours.")]
Layout = Annotated[
    str | None,
    typer.Option(help=f"{choice(choices.LAYOUTS)}: the task prompt last as in the paper, or first: quicker."),
]
Adapter = Annotated[str | None, typer.Option(help=f"{choice(ADAPTERS)}.")]
Ablate = Annotated[str | None, typer.Option(help=f"A row of the paper's Table 4: {choice(ABLATIONS)}.")]
Quantization = Annotated[
    str | None, typer.Option(help=f"How the LLM is held: {choice(KINDS)} [the run's or the profile's].")
]
TextFrom = Annotated[
    Literal["words", "file", "backbone"],
    typer.Option(help="What baselines read of a text: learned words, the file's own features, or an LLM's states."),
]
Estimate = Annotated[choices.Estimate | None, typer.Option(help="Point estimate [the run's].")]
OnMissing = Annotated[
    str | None, typer.Option(help=f"Samples that lack a modality: {choice(choices.MISSING_POLICIES)} [zero].")
]
Context = Annotated[int | None, typer.Option(help="Previous utterances of the dialogue before the text [0].")]
Folds = Annotated[str | None, typer.Option(help="Cross-validate: all, or the numbers of the folds to test.")]
Track = Annotated[
    list[str] | None, typer.Option(help=f"Show the run in {choice(choices.TRACKERS)} too; several with commas.")
]
RunFile = Annotated[str | None, typer.Option("--config", help="A run file, or the name of a shipped one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting: optim.lr=1e-4.", autocompletion=assignments, callback=_once_each),
]

LAUNCHES = sorted(path.stem for path in shipped("launch").glob("*.yaml"))
Launch = Annotated[str | None, typer.Option(help=f"Run in several processes: {', '.join(LAUNCHES)}, or a file.")]
NumProcesses = Annotated[int | None, typer.Option(min=1, help="Processes over all machines [one per GPU].")]
NumMachines = Annotated[int, typer.Option(min=1, help="Machines; give this command on each.")]
MachineRank = Annotated[int, typer.Option(min=0, help="Number of this machine, from 0.")]
MainAddress = Annotated[str | None, typer.Option(help="HOST:PORT on machine 0, reachable from all.")]


def names(given: list[str] | None) -> tuple[str, ...] | None:
    """An option that is given several times, or once with commas."""
    return tuple(name.strip() for text in given for name in text.split(",")) if given else None


def own_set(
    labels: str | None = None,
    span: str | None = None,
    language: str | None = None,
    prompt: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    columns: str | None = None,
    validation: float | None = None,
) -> OwnSet:
    """What `--labels`, `--range`, `--language`, `--prompt`, `--encoding`, `--delimiter`, `--columns` and
    `--validation` say.

    Raises:
        MsekitError: A range that is not two numbers, an empty class name, columns that are not pairs.
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
    delimiter = "\t" if delimiter in ("tab", "\\t") else delimiter
    named = _pairs(columns) if columns else None
    return OwnSet(names, numbers, language, prompt, encoding, delimiter, named, validation)


def _pairs(columns: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in columns.split(",")]
    keys = [key.strip() for key, _, _ in pairs]
    if not all(key.strip() and name for key, _, name in pairs) or len(set(keys)) < len(keys):
        raise MsekitError(f"--columns takes pairs, not '{columns}'", fix="For example --columns text=Utterance.")
    return {key.strip(): name.strip() for key, _, name in pairs}
