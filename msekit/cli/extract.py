"""`msekit extract`: a folder of clips → features, as a data set that `msekit train` reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli import options
from msekit.errors import MsekitError

if TYPE_CHECKING:
    from msekit.data.extractor import Extractor
    from msekit.media.records import ExtractionPlan, Shard
    from msekit.media.table import Clip
    from msekit.reporter import Reporter

_SOME_FAILED = 2  # exit code where clips were left out


Audio = Annotated[
    str,
    typer.Option(help="egemaps, logmel, none, or an encoder: hubert-large, whisper-base, …, folder, hub id."),
]
Vision = Annotated[
    str,
    typer.Option(help="face, none, or an encoder: clip-large, siglip2, dinov2, …, folder, hub id."),
]
Layers = Annotated[
    str | None, typer.Option(help="Of encoders: last4, mean, 9, 6-12; pooled, of pictures [last4, pooled].")
]
OneVector = Annotated[bool, typer.Option("--one-vector", help="Of encoders: a clip's mean, not its frames.")]
Transcribe = Annotated[
    str | None, typer.Option(help="Fill empty texts: tiny, base, small, large-v3, a folder, a hub id.")
]
Segment = Annotated[Literal["none", "vad"], typer.Option(help="Cut recordings into utterances where nobody speaks.")]
Crop = Annotated[Literal["none", "face"], typer.Option(help="Of encoders: cut pictures to the face first.")]
Table = Annotated[
    Path | None, typer.Option(help="CSV: file, text, label, split[, id, speaker, dialogue_id, …] [every clip].")
]
Face = Annotated[Literal["largest", "left", "right"], typer.Option(help="Which face, where several show.")]
Clips = Annotated[Path, typer.Argument(help="Folder of clips: wav, mp3, flac, ogg, m4a, mp4, mov, avi, webm, mkv.")]
Slurm = Annotated[int | None, typer.Option(min=2, help="Write an array script of this many shards.")]
ShardOf = Annotated[str | None, typer.Option(help="Do one share of the clips: 0/8.")]


def extract_command(
    clips: Clips,
    output: Annotated[Path, typer.Option(help="Folder for the features; an unfinished one is continued.")],
    table: Table = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: Annotated[
        Literal["en", "zh"] | None, typer.Option(help="Of the texts [en; heard, where transcribed].")
    ] = None,
    audio: Audio = "egemaps",
    vision: Vision = "face",
    layers: Layers = None,
    one_vector: OneVector = False,
    crop: Crop = "none",
    face: Face = "largest",
    transcribe: Transcribe = None,
    segment: Segment = "none",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [the number of cores].")] = None,
    slurm: Slurm = None,
    shard: ShardOf = None,
) -> None:
    """Extract features from clips. A clip that cannot be read is reported and left out."""
    from msekit.media.plan import plan_of
    from msekit.reporter import Reporter

    if not clips.is_dir():
        raise MsekitError("no such folder", where=clips)
    if table is not None and (labels is None) == (span is None):
        raise MsekitError("a table has either emotions or intensities", fix="Give --labels a,b,c or --range low,high.")
    if table is None and (labels is not None or span is not None):
        raise MsekitError("--labels and --range are of a table", fix="Give --table, or leave them out.")
    if table is None and language is not None and transcribe is None:
        raise MsekitError("--language is of texts, and there are none", fix="Give --table or --transcribe.")
    language = language or ("en" if table else None)
    description = None if table is None else _description(output.resolve().name, labels, span, language or "en")
    part = _shard(shard)
    rows = _rows(clips, table)
    if slurm is not None:
        _write_script(slurm, clips, output, len(rows))
        return
    plan = plan_of(audio, vision, layers, one_vector, crop, face)
    reporter = Reporter()
    rows = rows if part is None else part.of(rows)
    try:
        whole = len(rows)
        rows, lost = _cut(rows, output, reporter) if segment == "vad" else (rows, 0)
        if segment == "vad":
            reporter.note(f"{len(rows)} utterances in {whole - lost} recordings")
        rows, heard = _transcribed(rows, transcribe, language, output, reporter, part)
        left = _extracted(rows, plan, output, workers or os.cpu_count() or 1, reporter, part, description, heard)
    except KeyboardInterrupt:
        reporter.note("stopped; the same command goes on")
        raise typer.Exit(130) from None
    if left or lost:
        reporter.warn(f"{left + lost} clips were left out")
        raise typer.Exit(_SOME_FAILED)


def _rows(clips: Path, table: Path | None) -> list[Clip]:
    from msekit.media.table import clips_of, read_table

    return read_table(table, clips) if table else clips_of(clips)


def _cut(rows: list[Clip], output: Path, reporter: Reporter) -> tuple[list[Clip], int]:
    """Every recording in utterances, and how many cannot be cut: they are named and left out."""
    from msekit.media.segments import cut

    pieces: list[Clip] = []
    lost = 0
    with reporter.bar("cutting", len(rows)) as advance:
        for row in rows:
            try:
                pieces += cut(row, output / "clips")
            except MsekitError as error:
                reporter.warn(f"{row.id}: {error.what}")
                lost += 1
            advance(1)
    if not pieces:
        raise MsekitError("no recording could be cut into utterances", where=output)
    return pieces, lost


def _transcribed(
    rows: list[Clip], name: str | None, language: str | None, output: Path, reporter: Reporter, part: Shard | None
) -> tuple[list[Clip], Extractor | None]:
    """The clips with the texts that they lack, and what made them."""
    if name is None:
        return rows, None
    from msekit.media.transcribe import filled, transcriber

    with reporter.status(f"loading {name}"):
        record = transcriber(name, language)
    empty = sum(not row.text for row in rows)
    reporter.note(f"{empty} texts are transcribed by {record}, {len(rows) - empty} are there already")
    with reporter.bar("transcribing", len(rows)) as advance:
        complain = lambda clip, why: reporter.warn(f"{clip}: no text: {why}")  # noqa: E731
        return filled(rows, record, output, advance, complain, part), record


def _extracted(
    rows: list[Clip],
    plan: ExtractionPlan,
    output: Path,
    workers: int,
    reporter: Reporter,
    part: Shard | None,
    description: dict[str, Any] | None,
    heard: Extractor | None,
) -> int:
    """Features, samples and the set's YAML; the number of clips that were left out."""
    import yaml

    from msekit.data.extractor import other_language
    from msekit.media.extract import extract, write_samples

    reporter.note(f"{len(rows)} clips; audio: {plan.audio or 'none'}; vision: {plan.vision or 'none'}")
    records = {key: extractor for key, extractor in plan.of_modalities.items() if extractor is not None}
    if description is not None and (note := other_language(records, description["language"])) is not None:
        reporter.warn(note)
    outcomes = extract(rows, plan, output, workers, reporter, part)
    if part is not None:
        reporter.note(f"shard {part.number} of {part.count} is done; without --shard, all are joined")
        return sum(not outcome.frames for outcome in outcomes)
    usable = write_samples(rows, outcomes, output)
    if not usable:
        raise MsekitError("no clip could be used", where=output)
    if description is not None:
        made = records | ({"text": heard} if heard else {})
        description["extractors"] = {key: extractor.record() for key, extractor in made.items()}
        path = output / f"{description['name']}.yaml"
        path.write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True), encoding="utf-8")
        reporter.note(f"{usable} samples; next: msekit train --backbone NAME --dataset {path}")
    else:
        texts = "" if heard else "fill in their texts, then: "
        reporter.note(f"{usable} samples in {output}; {texts}msekit predict RUN --input {output / 'samples.jsonl'}")
    return len(rows) - usable


def _shard(text: str | None) -> Shard | None:
    """`3/8`: the fourth of eight processes."""
    from msekit.media.records import Shard

    if text is None:
        return None
    number, _, count = text.partition("/")
    if not number.isdecimal() or not count.isdecimal() or int(number) >= int(count):
        raise MsekitError(f"--shard '{text}' cannot be read", fix="Say 0/8 to 7/8.")
    return Shard(int(number), int(count))


def _write_script(count: int, clips: Path, output: Path, rows: int) -> None:
    """The array script that runs this command in shards."""
    from msekit.media.records import array_script
    from msekit.reporter import Reporter

    if count > rows:
        raise MsekitError(f"{count} shards for {rows} clips", where=clips, fix="Ask for fewer.")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "extract.sbatch"
    path.write_text(array_script(sys.argv[1:], count, output.resolve(), Path.cwd()), encoding="utf-8")
    Reporter().note(f"{count} shards of {rows} clips: sbatch {path}; then the same command without --slurm joins them")


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
