"""Clips → what is said in them, by a Whisper in CTranslate2's format through faster-whisper (int8 on a CPU).

Named models are pinned; a folder or a hub id of such a model works too. The record of the transcriber is kept with the
texts and the plug-in, so that new clips are heard as training's were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from msekit.data.extractor import Extractor, check_settings
from msekit.downloads import HubRepo, explained, no_bar
from msekit.errors import MsekitError, nearest, needs_extra
from msekit.media.decode import sound
from msekit.media.records import Shard, stamp_of
from msekit.media.table import Clip
from msekit.reporter import Reporter

LOG = "transcripts.jsonl"
TRANSCRIBERS = {
    "tiny": ("Systran/faster-whisper-tiny", "d90ca5fe260221311c53c58e660288d3deb8d356"),
    "base": ("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"),
    "small": ("Systran/faster-whisper-small", "536b0662742c02347bc0e980a01041f333bce120"),
    "large-v3": ("Systran/faster-whisper-large-v3", "edaa852ec7e145841d8ffdb056a99866b5f0a478"),
}
"""Name → hub repository and commit."""
_FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
_NEEDED = ("config.json", "model.bin", "tokenizer.json")
_BEAM = 5


def transcriber(name: str, language: str | None = None) -> Extractor:
    """The record of a transcriber, which is loaded to see that it can be.

    Args:
        name: `tiny`, `base`, `small`, `large-v3`, a folder, or a hub id with or without `@revision`.
        language: Spoken in the clips; None lets the model tell it for each.

    Raises:
        MsekitError: faster-whisper is not installed, or there is no such model.
    """
    settings: dict[str, Any] = {"language": language or "any", "beam": _BEAM}
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        record = Extractor(name=folder.name, version=_digest(folder), settings=settings, place=str(folder))
    else:
        repository, _, revision = name.partition("@")
        if name in TRANSCRIBERS:
            repository, revision = TRANSCRIBERS[name]
        elif repository.count("/") != 1 or repository.startswith((".", "~", "/")):
            fix = f"{nearest(name, TRANSCRIBERS)} A folder or a hub id works too."
            raise MsekitError(f"unknown transcriber '{name}'", fix=fix)
        version = _fetched(repository, revision or None).name
        record = Extractor(name=repository, version=version, settings=settings)
    _model(record)
    return record


def load_transcriber(record: Extractor) -> None:
    """Load the transcriber of a record, so that it is there when a clip comes; nothing is fetched.

    Raises:
        MsekitError: It is not on this machine, or the record is damaged.
    """
    check_settings(record, "text")
    _model(record)


def transcript(path: Path, record: Extractor) -> str:
    """What is said in a clip; empty where nothing is.

    Raises:
        MsekitError: The clip cannot be decoded or has no sound, or the transcriber is not there.
    """
    samples_S = sound(path)
    check_settings(record, "text")
    language = record.settings["language"]
    pieces, _ = _model(record).transcribe(
        samples_S, language=None if language == "any" else language, beam_size=record.settings["beam"]
    )
    return " ".join(piece.text.strip() for piece in pieces).strip()


def filled(
    clips: Sequence[Clip],
    record: Extractor,
    output: Path,
    advance: Callable[[int], None],
    complain: Callable[[str, str], None],
    shard: Shard | None = None,
) -> list[Clip]:
    """The clips with texts: those given stay as they are, the others are transcribed.

    What was transcribed stands in `transcripts.jsonl` and is not done again where neither clip nor transcriber changed.

    Args:
        clips: The clips.
        record: The transcriber.
        output: Folder of the data set.
        advance: Called with 1 for each clip.
        complain: Called with the id of a clip and why it has no text.
        shard: Which of several processes this is; None where it is the only one.

    Raises:
        MsekitError: The folder cannot be written.
    """
    own = output / (LOG if shard is None else f"transcripts-{shard.number}-of-{shard.count}.jsonl")
    known: dict[tuple[Any, ...], str] = {}
    for log_file in sorted(output.glob("transcripts*.jsonl")):
        known |= _known(log_file, record)
    texts = []
    try:
        output.mkdir(parents=True, exist_ok=True)
        with own.open("a", encoding="utf-8") as log:
            for clip in clips:
                stamp = stamp_of(clip.path)
                key = (clip.id, *stamp)
                if not clip.text and key in known:
                    clip = replace(clip, text=known[key])
                elif not clip.text:
                    try:
                        clip = replace(clip, text=transcript(clip.path, record))
                    except MsekitError as error:
                        complain(clip.id, error.what)
                    else:
                        line = {"id": clip.id, "stamp": stamp, "text": clip.text, "transcriber": record.record()}
                        log.write(json.dumps(line, ensure_ascii=False) + "\n")
                        log.flush()
                texts.append(clip)
                advance(1)
    except OSError as error:
        raise MsekitError(f"the output folder cannot be written: {error}", where=output) from error
    return texts


def _known(log: Path, record: Extractor) -> dict[tuple[Any, ...], str]:
    """Id and stamp → text, of this transcriber; a half-written last line counts as none."""
    known: dict[tuple[Any, ...], str] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            if Extractor(**entry["transcriber"]).makes_the_same(record):
                key = (entry["id"], *entry["stamp"])
                known[key] = str(entry["text"])
        except (ValueError, KeyError, TypeError):
            continue
    return known


@lru_cache(maxsize=4)
def _digest(folder: Path) -> str:
    if absent := [name for name in _NEEDED if not (folder / name).is_file()]:
        fix = "It must hold a Whisper in CTranslate2's format (ct2-transformers-converter makes one)."
        raise MsekitError(f"no {absent[0]}: not a transcriber", where=folder, fix=fix)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if any(path.match(name) for name in _FILES)):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(4 << 20):
                digest.update(block)
    return f"sha256-{digest.hexdigest()[:24]}"


def _fetched(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if (cached := _cached(repository, revision)) is not None:
        return cached
    with explained(HubRepo(repository, "model", revision), "the transcriber", "Or give the folder of one."):
        Reporter().note(f"fetching the transcriber {repository}")
        bar = no_bar()
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES), tqdm_class=bar))
    _digest(folder)
    return folder


def _cached(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(repository, name, revision=revision) for name in _NEEDED]
    except HFValidationError:
        return None
    return Path(str(found[0])).parent if all(isinstance(path, str) for path in found) else None


def _model(record: Extractor) -> Any:
    if record.place is None:  # a plug-in's record does not decide what is downloaded
        if (cached := _cached(record.name, record.version)) is None:
            raise MsekitError(
                f"the transcriber {record.name} is not on this machine, and a record of it downloads nothing",
                fix=f"If you trust it: hf download {record.name} --revision {record.version}",
            )
        return _loaded(cached)
    folder = Path(record.place)
    if not folder.is_dir():
        raise MsekitError(f"the transcriber '{record.name}' is not where it was", where=folder)
    if (found := _digest(folder)) != record.version:
        raise MsekitError(f"the transcriber's files are others ({found}) than before ({record.version})", where=folder)
    return _loaded(folder)


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise needs_extra("transcripts need faster-whisper", "speech") from error
    try:
        from ctranslate2 import get_cuda_device_count

        way = ("cuda", "float16") if get_cuda_device_count() else ("cpu", "int8")
        return WhisperModel(str(folder), device=way[0], compute_type=way[1], local_files_only=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise MsekitError(f"the transcriber cannot be loaded: {str(error)[:300]}", where=folder) from error
