"""Published feature files → plain rows, checked, with padding cut off.

Two layouts are read (facts: "Published feature files"): `msa-pickle`, one file that holds all splits as columns,
and `erc-pickle`, one file per split that holds a list of samples. Whatever does not fit is refused, naming the
file, the row and the key: a file that is read wrongly trains to a wrong number without any error.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.unpickle import safe_load
from msekit.errors import MsekitError, nearest

__all__ = ["PublishedSet", "Row", "read_split", "safe_load"]

_RANGE_TOLERANCE = 1e-6
_PICKLES = (".pkl", ".pickle")


@dataclass(slots=True)
class Row:
    """One sample. Shapes: L frames (its own, without padding), D features."""

    id: str
    text: str
    label: float
    """Class number (erc) or intensity (msa)."""
    audio: np.ndarray | None
    """[L, D], or None where the sample has none."""
    vision: np.ndarray | None
    speaker: str | None = None
    dialogue_id: str | None = None


class PublishedSet:
    """The published files of a data set; each is read when its rows are first asked for, and only once.

    Args:
        spec: Which data set, where it lies and what it must look like.

    Raises:
        MsekitError: The files are not there.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        if spec.layout == "synthetic":
            raise MsekitError(f"data set '{spec.name}' is generated: it has no published files")
        if spec.source is None:
            hub = f" (published as {spec.hub} on the hub)" if spec.hub else ""
            raise MsekitError(
                f"data set '{spec.name}' needs its feature files{hub}", fix="Say where they lie with --source PATH"
            )
        find = _find_msa if spec.layout == "msa-pickle" else _find_erc
        try:
            self._files = find(spec, Path(spec.source))
        except OSError as error:
            raise MsekitError(f"the source cannot be read: {error}", where=spec.source) from error
        self._columns: Mapping[str, Any] | None = None

    @property
    def source_files(self) -> list[Path]:
        """The files that the rows come from, without repetition, in the order of the splits."""
        return list(dict.fromkeys(self._files.values()))

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of one split, in the file's order.

        Args:
            split: `train`, `valid` or `test`.

        Raises:
            MsekitError: The file cannot be read, or something in it is missing or wrong.
        """
        if split not in SPLITS:
            raise MsekitError(f"no such split '{split}'", where=self.spec.name, fix=nearest(split, SPLITS))
        path = self._files[split]
        if self.spec.layout == "erc-pickle":
            return _erc_rows(self.spec, path, split, safe_load(path))
        if self._columns is None:
            self._columns = _mapping(safe_load(path), str(path), "the file")
        if split not in self._columns:
            raise MsekitError(f"split '{split}' is missing", where=path, fix=f"The file holds: {_names(self._columns)}")
        return _msa_rows(self.spec, path, split, self._columns[split])


def read_split(spec: DatasetSpec, split: str) -> Iterator[Row]:
    """Read one split of a data set; for several splits of one file, `PublishedSet` reads it once.

    Raises:
        MsekitError: See `PublishedSet` and its `rows`.
    """
    return PublishedSet(spec).rows(split)


def _find_msa(spec: DatasetSpec, source: Path) -> dict[str, Path]:
    if source.is_dir():
        pickles = sorted(path for path in source.iterdir() if path.suffix in _PICKLES)
        named = source / spec.files if spec.files else None
        if named is None and len(pickles) > 1:
            found = ", ".join(path.name for path in pickles)
            raise MsekitError(f"the folder holds several pickles: {found}", where=source, fix="Name one with --source")
        if named is not None and not named.is_file() and len(pickles) == 1:
            named = None
        source = named if named is not None else pickles[0] if pickles else source / "*.pkl"
    if not source.is_file():
        raise MsekitError(
            "no such file", where=source, fix=f"Looked for {spec.files or 'one .pkl'}, which holds all splits"
        )
    return dict.fromkeys(SPLITS, source)


def _find_erc(spec: DatasetSpec, source: Path) -> dict[str, Path]:
    if source.is_file():
        raise MsekitError("a folder with three pickles is needed, not a file", where=source, fix="Give its folder")
    files = {split: source / f"{spec.files or spec.name}_{split}.pkl" for split in SPLITS}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise MsekitError("no such file", where=missing[0], fix=f"Looked for: {', '.join(map(str, files.values()))}")
    return files


def _names(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(str(key) for key in list(mapping)[:12]) or "nothing"


def _mapping(value: object, where: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MsekitError(f"{what} holds a {type(value).__name__}, not a dict", where=where)
    return value


def _msa_rows(spec: DatasetSpec, path: Path, split: str, table: object) -> Iterator[Row]:
    """Columns of one split → rows."""
    columns = _mapping(table, f"{path}, {split}", "the split")
    needed = {key: _column(columns, key, path, split) for key in ("raw_text", "regression_labels")}
    count = len(needed["raw_text"])
    optional = ("id", "audio", "audio_lengths", "vision", "vision_lengths")
    found = {key: _column(columns, key, path, split) for key in optional if columns.get(key) is not None}
    for key, column in {**needed, **found}.items():
        if len(column) != count:
            raise MsekitError(
                f"'{key}' has {len(column)} entries, 'raw_text' has {count}", where=f"{path}, {split}, key '{key}'"
            )
    for number in range(count):
        where = f"{path}, {split} row {number}"
        part = {key: column[number] for key, column in found.items()}
        yield Row(
            id=_identity(part.get("id"), split, number, where),
            text=_string(needed["raw_text"][number], where, "raw_text"),
            label=_label(spec, needed["regression_labels"][number], where, "regression_labels"),
            audio=_modality(spec, part.get("audio"), part.get("audio_lengths"), where, "audio"),
            vision=_modality(spec, part.get("vision"), part.get("vision_lengths"), where, "vision"),
        )


def _column(columns: Mapping[str, Any], key: str, path: Path, split: str) -> Sequence[Any] | np.ndarray:
    where = f"{path}, {split}, key '{key}'"
    if columns.get(key) is None:
        raise MsekitError(f"key '{key}' is missing", where=where, fix=f"The split holds: {_names(columns)}")
    column = columns[key]
    if isinstance(column, np.ndarray):
        column = np.asarray(column)  # the plain class, whatever reading gave
        if key in ("audio", "vision") and column.dtype != object and column.ndim != 3:
            raise MsekitError(f"'{key}' has shape {column.shape}, not (samples, frames, features)", where=where)
        if key not in ("audio", "vision") and column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim == 0:
            raise MsekitError(f"'{key}' is a single value, not one per sample", where=where)
    elif not isinstance(column, (list, tuple)):
        raise MsekitError(f"'{key}' is a {type(column).__name__}, not a list or an array", where=where)
    return column


def _erc_rows(spec: DatasetSpec, path: Path, split: str, samples: object) -> Iterator[Row]:
    """List of samples of one split → rows."""
    if not isinstance(samples, (list, tuple)):
        raise MsekitError(f"the file holds a {type(samples).__name__}, not a list of samples", where=path)
    for number, entry in enumerate(samples):
        where = f"{path}, row {number}"
        sample = _mapping(entry, where, "the row")
        for key in ("features", "label"):
            if sample.get(key) is None:
                raise MsekitError(f"key '{key}' is missing", where=where, fix=f"The row holds: {_names(sample)}")
        features = _mapping(sample["features"], f"{where}, key 'features'", "'features'")
        if features.get("text") is None:
            raise MsekitError("key 'text' is missing", where=where, fix=f"The features hold: {_names(features)}")
        speaker, dialogue = sample.get("speaker"), sample.get("dialogue_id")
        yield Row(
            id=_identity(sample.get("id"), split, number, where),
            text=_string(features["text"], where, "text"),
            label=_label(spec, sample["label"], where, "label"),
            audio=_modality(spec, features.get("audio"), features.get("audio_len"), where, "audio"),
            vision=_modality(spec, features.get("video"), features.get("video_len"), where, "video"),
            speaker=None if speaker is None else _name(speaker, where, "speaker"),
            dialogue_id=None if dialogue is None else _name(dialogue, where, "dialogue_id"),
        )


def _string(value: object, where: str, key: str) -> str:
    """A str, a numpy string or UTF-8 bytes → str that can be written as UTF-8."""
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, str):
            return str(value).encode("utf-8").decode("utf-8")
    except UnicodeError as error:
        raise MsekitError(f"'{key}' is not valid text: {error}", where=where) from error
    raise MsekitError(f"'{key}' is a {type(value).__name__}, not a text", where=where)


def _name(value: object, where: str, key: str) -> str:
    return str(int(value)) if isinstance(value, (int, np.integer)) else _string(value, where, key)


def _identity(value: object, split: str, number: int, where: str) -> str:
    return f"{split}-{number:06d}" if value is None else _name(value, where, "id")


def _number(value: object) -> float | None:
    """A number, a numpy number, an array of one or a number's text → float; None for anything else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("latin1")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating, str)):
        return None
    try:
        # A float32 -0.4 was published as -0.4: its own digits, not those of the nearest float64 to its bits.
        return float(str(value)) if isinstance(value, (np.float16, np.float32)) else float(value)
    except (ValueError, OverflowError):
        return None


def _label(spec: DatasetSpec, value: object, where: str, key: str) -> float:
    """The class number (erc) or the intensity (msa).

    Raises:
        MsekitError: The label is not one of the data set's.
    """
    where = f"{where}, key '{key}'"
    number = _number(value)
    if spec.range is not None:
        low, high = spec.range
        if number is None or not math.isfinite(number):
            raise MsekitError(f"label {reprlib.repr(value)} is not a finite number", where=where)
        if not low - _RANGE_TOLERANCE <= number <= high + _RANGE_TOLERANCE:
            raise MsekitError(
                f"label {number:g} is outside the range of '{spec.name}', {low:g} to {high:g}",
                where=where,
                fix="Check that this is the right file, or give the data set its own `range`",
            )
        return min(max(number, low), high)
    labels = spec.labels or ()
    if isinstance(value, (str, bytes)):
        name = _string(value, where, key)
        name = spec.aliases.get(name, name)
        if name in labels:
            return float(labels.index(name))
    if number is not None and number in range(len(labels)):
        return float(int(number))
    known = ", ".join(f"{index} {label}" for index, label in enumerate(labels))
    raise MsekitError(
        f"unknown label {reprlib.repr(value)}", where=where, fix=f"Known labels of '{spec.name}': {known}"
    )


def _modality(spec: DatasetSpec, value: object, length: object, where: str, key: str) -> np.ndarray | None:
    """One sample's frames [L, D] cut to their true length; None where there are none.

    Raises:
        MsekitError: The shape, the type, the width or the length is wrong.
    """
    where = f"{where}, key '{key}'"
    if value is None:
        return None
    try:
        frames_LD = np.asarray(value)
    except ValueError as error:
        raise MsekitError(f"'{key}' is not an array: {error}", where=where) from error
    if frames_LD.dtype.kind not in "fiub":
        raise MsekitError(f"'{key}' holds {frames_LD.dtype}, not numbers", where=where)
    if frames_LD.ndim != 2:
        raise MsekitError(f"'{key}' has shape {frames_LD.shape}, not (frames, features)", where=where)
    frames = len(frames_LD)
    if length is not None:
        count = _number(length)
        if count is None or not math.isfinite(count) or count < 0 or count != int(count):
            raise MsekitError(f"the length of '{key}' is {reprlib.repr(length)}, not a number of frames", where=where)
        if count > frames:
            raise MsekitError(f"the length of '{key}' is {int(count)}, but it has {frames} frames", where=where)
        frames = int(count)
    width = frames_LD.shape[1]
    expected = spec.audio_width if key == "audio" else spec.vision_width
    if expected is not None and width != expected and (frames or width):
        twins = " Two files called MOSEI circulate, with audio width 5 and 74." if spec.name == "mosei" else ""
        raise MsekitError(
            f"'{key}' has {width} features per frame, '{spec.name}' has {expected}",
            where=where,
            fix=f"This is another feature file.{twins} Get the right one, or describe this one in a YAML of its own",
        )
    if frames and not width:
        raise MsekitError(f"'{key}' has frames without features", where=where)
    return frames_LD[:frames] if frames else None
