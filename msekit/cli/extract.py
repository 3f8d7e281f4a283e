"""`msekit extract`: a folder of clips → features, as a data set that `msekit train` reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from msekit.cli import options
from msekit.errors import MsekitError

_SOME_FAILED = 2  # exit code where clips were left out


def extract_command(
    clips: Annotated[Path, typer.Argument(help="Folder of clips: wav, mp3, flac, ogg, m4a, mp4, mov, avi, webm, mkv.")],
    output: Annotated[Path, typer.Option(help="Folder for the features; an unfinished one is continued.")],
    table: Annotated[
        Path | None, typer.Option(help="CSV: file, text, label, split[, id, speaker, dialogue_id] [every clip].")
    ] = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the texts.")] = "en",
    audio: Annotated[Literal["egemaps", "logmel", "none"], typer.Option(help="Audio features.")] = "egemaps",
    vision: Annotated[Literal["face", "none"], typer.Option(help="Vision features.")] = "face",
    face: Annotated[
        Literal["largest", "left", "right"], typer.Option(help="Which face, where several show.")
    ] = "largest",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [the number of cores].")] = None,
) -> None:
    """Extract audio and face features from clips. A clip that cannot be read is reported and left out."""
    import yaml

    from msekit.media.audio import audio_extractor
    from msekit.media.extract import ExtractionPlan, extract, write_samples
    from msekit.media.table import clips_of, read_table
    from msekit.media.vision import vision_extractor
    from msekit.reporter import Reporter

    if not clips.is_dir():
        raise MsekitError("no such folder", where=clips)
    if table is not None and (labels is None) == (span is None):
        raise MsekitError("a table has either emotions or intensities", fix="Give --labels a,b,c or --range low,high.")
    description = None if table is None else _description(output.resolve().name, labels, span, language)
    rows = read_table(table, clips) if table else clips_of(clips)
    plan = ExtractionPlan(
        None if audio == "none" else audio_extractor(audio), None if vision == "none" else vision_extractor(face)
    )
    if plan.audio is None and plan.vision is None:
        raise MsekitError("nothing to extract", fix="Leave --audio or --vision at something.")
    reporter = Reporter()
    reporter.note(f"{len(rows)} clips; audio: {plan.audio or 'none'}; vision: {plan.vision or 'none'}")
    try:
        outcomes = extract(rows, plan, output, workers or os.cpu_count() or 1, reporter)
    except KeyboardInterrupt:
        reporter.note("stopped; the same command goes on")
        raise typer.Exit(130) from None
    usable = write_samples(rows, outcomes, output)
    if not usable:
        raise MsekitError("no clip could be used", where=clips)
    if description is not None:
        description["extractors"] = {key: value for key, value in plan.record().items() if value}
        path = output / f"{description['name']}.yaml"
        path.write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True), encoding="utf-8")
        reporter.note(f"{usable} samples; next: msekit train --backbone NAME --dataset {path}")
    else:
        reporter.note(
            f"{usable} samples in {output}; fill in their texts, then: msekit predict RUN --input samples.jsonl"
        )
    if usable < len(rows):
        reporter.warn(f"{len(rows) - usable} clips were left out")
        raise typer.Exit(_SOME_FAILED)


def _description(name: str, labels: str | None, span: str | None, language: str) -> dict[str, Any]:
    """The data set's YAML, checked before hours are spent."""
    from pydantic import ValidationError

    from msekit.data.catalogue import DatasetSpec
    from msekit.words import first_fault

    described = options.own_set(labels, span, language).settings()
    raw: dict[str, Any] = {"name": name, "task": "erc" if labels else "msa", "layout": "folder"}
    raw |= {key: list(value) if isinstance(value, tuple) else value for key, value in described.items()}
    try:
        DatasetSpec(**raw)
    except ValidationError as error:
        raise MsekitError(f"--labels or --range: {first_fault(error)[2]}") from error
    return raw | {"source": "."}
