"""`msekit extract`: a folder of clips → features, as a data set that `msekit train` reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli import options
from msekit.errors import MsekitError

if TYPE_CHECKING:
    from msekit.media.extract import ExtractionPlan

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
    audio: Annotated[
        str,
        typer.Option(help="egemaps, logmel, none, or an encoder: hubert-large, whisper-base, …, a folder, a hub id."),
    ] = "egemaps",
    vision: Annotated[
        str, typer.Option(help="face, none, or an encoder: clip-large, siglip2, dinov2, videomae, a folder, a hub id.")
    ] = "face",
    layers: Annotated[
        str | None, typer.Option(help="Of encoders: last4, mean, 9, 6-12; pooled, of pictures [last4, pooled].")
    ] = None,
    one_vector: Annotated[
        bool, typer.Option("--one-vector", help="Of encoders: a clip's mean, not its frames.")
    ] = False,
    crop: Annotated[
        Literal["none", "face"], typer.Option(help="Of encoders: cut pictures to the face first.")
    ] = "none",
    face: Annotated[
        Literal["largest", "left", "right"], typer.Option(help="Which face, where several show.")
    ] = "largest",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [the number of cores].")] = None,
) -> None:
    """Extract audio and face features from clips. A clip that cannot be read is reported and left out."""
    import yaml

    from msekit.data.extractor import other_language
    from msekit.media.extract import extract, write_samples
    from msekit.media.table import clips_of, read_table
    from msekit.reporter import Reporter

    if not clips.is_dir():
        raise MsekitError("no such folder", where=clips)
    if table is not None and (labels is None) == (span is None):
        raise MsekitError("a table has either emotions or intensities", fix="Give --labels a,b,c or --range low,high.")
    description = None if table is None else _description(output.resolve().name, labels, span, language)
    rows = read_table(table, clips) if table else clips_of(clips)
    plan = _plan(audio, vision, layers, one_vector, crop, face)
    if plan.audio is None and plan.vision is None:
        raise MsekitError("nothing to extract", fix="Leave --audio or --vision at something.")
    reporter = Reporter()
    reporter.note(f"{len(rows)} clips; audio: {plan.audio or 'none'}; vision: {plan.vision or 'none'}")
    if description is not None:
        records = {key: extractor for key, extractor in plan.of_modalities.items() if extractor is not None}
        if (note := other_language(records, language)) is not None:
            reporter.warn(note)
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


def _plan(audio: str, vision: str, layers: str | None, one_vector: bool, crop: str, face: Any) -> ExtractionPlan:
    """The extractors that the options name; encoders are loaded and tried before hours are spent."""
    from msekit.media.audio import EXTRACTORS, audio_extractor
    from msekit.media.extract import ExtractionPlan
    from msekit.media.face_engines import ENGINES
    from msekit.media.vision import EXTRACTOR, vision_extractor

    faces = {EXTRACTOR: None, **{f"{EXTRACTOR}-{name}": name for name in ENGINES}}
    listens, sees = audio not in (*EXTRACTORS, "none"), vision not in (*faces, "none")
    if not (listens or sees) and (layers is not None or one_vector):
        raise MsekitError("--layers and --one-vector are of encoders", fix="Name one: --audio hubert-base.")
    if crop == "face" and not sees:
        raise MsekitError("--crop is of vision encoders", fix="Name one: --vision clip-large.")
    if not listens and not sees:
        return ExtractionPlan(
            None if audio == "none" else audio_extractor(audio),
            None if vision == "none" else vision_extractor(face, faces[vision]),
        )
    from msekit.media.encoders import encoder_extractor

    heard = encoder_extractor(audio, "audio", layers, one_vector=one_vector, known=EXTRACTORS) if listens else None
    cut = face if crop == "face" else None
    known = tuple(faces)
    seen = encoder_extractor(vision, "vision", layers, one_vector=one_vector, crop=cut, known=known) if sees else None
    return ExtractionPlan(
        heard if listens or audio == "none" else audio_extractor(audio),
        seen if sees or vision == "none" else vision_extractor(face, faces[vision]),
    )


def _description(name: str, labels: str | None, span: str | None, language: str) -> dict[str, Any]:
    """The data set's YAML, checked before hours are spent."""
    from pydantic import ValidationError

    from msekit.data.catalogue import DatasetSpec

    described = options.own_set(labels, span, language).settings()
    raw: dict[str, Any] = {"name": name, "task": "erc" if labels else "msa", "layout": "folder"}
    raw |= {key: list(value) if isinstance(value, tuple) else value for key, value in described.items()}
    try:
        DatasetSpec(**raw)
    except ValidationError as error:
        raise MsekitError(f"--labels or --range: {error.errors()[0]['msg']}") from error
    return raw | {"source": "."}
