"""Long recordings → utterances: silero-vad says where somebody speaks, ffmpeg cuts there.

The pieces are clips like any others: WAV where there is sound alone, else Matroska with the sound as it is and the
pictures coded anew at high quality. `start` and `end` in seconds go with them.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from msekit.errors import MsekitError, needs_extra
from msekit.media.decode import SAMPLE_RATE, clip_command, has_pictures, sound
from msekit.media.records import stamp_of
from msekit.media.table import Clip

LONGEST_RECORDING = 4 * 3600
"""Seconds; its sound takes 64 kB each."""
_LONGEST_PIECE = 30.0
"""Seconds; longer speech is cut at its longest pause."""
_PAUSE_MS = 500
"""Milliseconds; a shorter pause is within an utterance."""
_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Piece:
    """An utterance of a recording, in seconds."""

    start: float
    end: float


def pieces_of(samples_S: np.ndarray) -> list[Piece]:
    """Where somebody speaks in (S,) sound at 16 kHz.

    Raises:
        MsekitError: silero-vad is not installed.
    """
    import torch

    model, timestamps = _vad()
    found = timestamps(
        torch.tensor(samples_S),
        model,
        sampling_rate=SAMPLE_RATE,
        max_speech_duration_s=_LONGEST_PIECE,
        min_silence_duration_ms=_PAUSE_MS,
    )
    return [Piece(piece["start"] / SAMPLE_RATE, piece["end"] / SAMPLE_RATE) for piece in found]


def cut(recording: Clip, folder: Path) -> list[Clip]:
    """Cut a recording into clips of one utterance each; pieces that are there already are not cut again.

    Args:
        recording: The recording; its speaker and dialogue go over to the pieces.
        folder: Where the pieces go.

    Raises:
        MsekitError: It cannot be decoded, has no sound, or nobody speaks in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = _known(recording, folder)
    if not pieces:
        raise MsekitError("nobody speaks in it", where=recording.path)
    suffix = ".mkv" if has_pictures(recording.path) else ".wav"
    clips = []
    for number, piece in enumerate(pieces):
        name = f"{recording.id}-{number:04}"
        path = folder / f"{name}{suffix}"
        if not path.is_file():
            _cut(recording.path, piece, path)
        talk = recording.dialogue_id or recording.id
        start, end = round(piece.start, 3), round(piece.end, 3)
        clips.append(replace(recording, id=name, path=path, text="", dialogue_id=talk, start=start, end=end))
    return clips


def _known(recording: Clip, folder: Path) -> list[Piece]:
    """A recording's pieces, found once: they stand beside the clips. Found anew, what was cut before is removed."""
    notes, stamp = folder / f"{recording.id}.pieces.json", stamp_of(recording.path)
    try:
        record = json.loads(notes.read_text(encoding="utf-8"))
        if record["stamp"] == stamp:
            return [Piece(float(start), float(end)) for start, end in record["pieces"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or only half
    pieces = pieces_of(sound(recording.path, longest=LONGEST_RECORDING))
    cut_before = re.compile(re.escape(recording.id) + r"-\d{4,}\.(mkv|wav)")
    for path in folder.iterdir():
        if cut_before.fullmatch(path.name):
            path.unlink()
    text = json.dumps({"stamp": stamp, "pieces": [[piece.start, piece.end] for piece in pieces]})
    notes.write_text(text, encoding="utf-8")
    return pieces


def _cut(source: Path, piece: Piece, target: Path) -> None:
    coding = ["-c:a", "pcm_s16le"]
    if target.suffix == ".mkv":
        coding += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-pix_fmt", "yuv420p"]
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    output = ["-y", "-map_metadata", "-1", *coding, f"file:{partial.resolve()}"]
    command = clip_command(source, output, start=piece.start, seconds=piece.end - piece.start)
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MsekitError(f"cutting took more than {_PATIENCE_SECONDS} s", where=source) from error
    if done.returncode:
        reason = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["ffmpeg gave no reason"])[-1]
        raise MsekitError(f"it cannot be cut: {reason[:200]}", where=source)
    partial.replace(target)


@lru_cache(maxsize=1)
def _vad() -> tuple[Any, Any]:
    try:
        from silero_vad import get_speech_timestamps, load_silero_vad
    except ImportError as error:
        raise needs_extra("cutting recordings needs silero-vad", "speech") from error
    return load_silero_vad(onnx=True), get_speech_timestamps
