"""Prediction of a JSON-lines file as a stream: bounded lines, bounded memory, and a bad line never stops the rest.

A line is `{"id"?, "text", "audio"?, "vision"?, "history"?, "speaker"?}`; history is a list of pairs of speaker and
text; audio and vision are nested lists or the path of a feature file,
relative to the JSON-lines file's folder. Other keys are left alone and named once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from msekit.data.catalogue import MODALITIES
from msekit.errors import MsekitError
from msekit.inference.plugin import BATCH_SIZE, PlugIn
from msekit.inference.prediction import Prediction
from msekit.inference.samples import Prepared, prepare_sample
from msekit.json_file import parse_json
from msekit.words import reason

LONGEST_LINE = 32 << 20
"""Bytes; the longest published sample (CHERMA, 543 × 1024 numbers) takes a third of it as text."""
_PIECE = 1 << 20  # bytes read at a time
_WINDOW_BATCHES = 32  # batches' worth of lines that are sorted by length together
_WINDOW_BYTES = 256 << 20  # features held at a time
_KNOWN = {"id", "text", *MODALITIES}
_OF_A_DIALOGUE = ("history", "speaker")
"""Read by plug-ins that were trained with context."""


@dataclass
class Outcome:
    """What became of a file."""

    predicted: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    """Line number and what is wrong with it."""
    ignored_keys: set[str] = field(default_factory=set)


def predict_file(
    plug_in: PlugIn,
    path: Path,
    write: Callable[[Prediction], None],
    *,
    complain: Callable[[int, str], None],
    estimate: str | None = None,
    batch_size: int = BATCH_SIZE,
) -> Outcome:
    """Predict every line of a file, in its order.

    Args:
        plug_in: What predicts.
        path: The JSON-lines file.
        write: Called with each prediction.
        complain: Called with the number of a line and what is wrong with it, or was done to it.
        estimate: Another point estimate than the run's own.
        batch_size: Most samples computed together.

    Raises:
        MsekitError: The file cannot be read.
    """
    outcome = Outcome()
    window: list[tuple[int, Prepared]] = []

    def flush() -> None:
        predictions = plug_in.predict_prepared([sample for _, sample in window], estimate, batch_size)
        for (number, _), prediction in zip(window, predictions, strict=True):
            write(prediction)
            for note in prediction.notes:
                complain(number, note)
        outcome.predicted += len(window)
        window.clear()

    try:
        with path.open("rb", buffering=_PIECE) as file:
            for number, line in _lines(file):
                try:
                    window.append((number, _sample(plug_in, number, line, path.parent, outcome)))
                except MsekitError as error:
                    outcome.failed.append((number, str(error)))
                    complain(number, str(error))
                waiting_bytes = sum(sample.bytes for _, sample in window)
                if len(window) >= _WINDOW_BATCHES * batch_size or waiting_bytes >= _WINDOW_BYTES:
                    flush()
    except OSError as error:
        raise MsekitError(f"the file cannot be read: {reason(error)}", where=path) from error
    flush()
    return outcome


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines that are not blank; None for one that is too long, which is skipped piece by piece."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = file.readline(_PIECE)
            yield number, None
        elif line.strip():
            yield number, line


def _sample(plug_in: PlugIn, number: int, line: bytes | None, folder: Path, outcome: Outcome) -> Prepared:
    if line is None:
        raise MsekitError(f"the line is longer than {LONGEST_LINE >> 20} MB", fix="Give features by path.")
    try:
        raw: Any = parse_json(line)
    except ValueError as error:
        raise MsekitError(f"not a line of JSON: {reason(error)}") from error
    if not isinstance(raw, dict):
        raise MsekitError(f"the line holds a {type(raw).__name__}, not an object with 'text'")
    if "text" not in raw:
        raise MsekitError("key 'text' is missing")
    dialogue = _OF_A_DIALOGUE if plug_in.description.context else ()
    outcome.ignored_keys |= raw.keys() - {*_KNOWN, *dialogue}
    identity = raw.get("id", number)
    if not isinstance(identity, (str, int)):
        raise MsekitError(f"'id' is a {type(identity).__name__}, not a text or a number")
    features = {key: folder / raw[key] if isinstance(raw.get(key), str) else raw.get(key) for key in MODALITIES}
    said = {key: raw.get(key) for key in dialogue}
    return prepare_sample(plug_in.description, str(identity), raw["text"], features, **said)
