"""Row: one sample as every reader gives it, and the checks that each of its fields passes.

Whatever does not fit is refused, naming the file, the row and the key: a value that is read wrongly trains to a
wrong number without any error.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from msekit.data.bounds import LEAST_BUDGET, MOST_FOLD
from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError

_LONGEST_TEXT = 1_000_000  # characters
_LONGEST_ID = 80  # characters of one that is shown
MOST_VALUES = 1 << 26
"""Numbers in one sample's features: 100 times the largest published one, half a gigabyte of float64."""


@dataclass(slots=True)
class Row:
    """One sample. Shapes: L frames (its own, without padding), D features."""

    id: str
    text: str
    label: float | tuple[float, ...]
    """Class number (erc) or intensity (msa), NaN where a row of test has none; of several targets a number for each
    question (`data/targets.py`), NaN where the row does not answer it."""
    audio: np.ndarray | None
    """[L, D], or None where the sample has none."""
    vision: np.ndarray | None
    speaker: str | None = None
    dialogue_id: str | None = None
    empty: tuple[str, ...] = ()
    """Of the modalities that are None, those whose array has no frames."""


class RowError(MsekitError):
    """A row that is unusable for a cause that other rows may share.

    Args:
        what: What is wrong with this row.
        where: The row.
        fix: What to do about it.
        cause: What is wrong, without what only this row has: rows of one cause are one finding.
        value: What this row has; a finding names the extremes of numbers and the first of other values.
    """

    def __init__(
        self, what: str, *, where: object, fix: str | None = None, cause: str, value: float | str | None = None
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.cause, self.value = cause, value


ReadRow = Callable[[], Row]
"""Reads one row; raises MsekitError where the row is unusable."""


class RowSource(Protocol):
    """The rows of a data set, wherever they come from."""

    spec: DatasetSpec

    @property
    def source_files(self) -> list[Path]:
        """The files that the rows come from, in a fixed order."""

    def readers(self, split: str) -> Iterator[ReadRow]:
        """One reader per row of a split, in the file's order: each row can be tried by itself."""

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of one split."""

    @property
    def bystanders(self) -> list[Path]:
        """Files beside `source_files` that could be meant as features and are not read."""

    def unread(self) -> Unread:
        """What the rows of all splits, once they are read, left unread."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Features that are there and belong to no sample, a sentence for each kind."""

    warnings: tuple[str, ...] = ()
    error: MsekitError | None = None
    """Where none of a modality's files is used: the set would be trained on without it."""


class Budget:
    """Refuses rows that come to far more than their files: the same features repeated without end, or packed zeros.

    Args:
        files: What the rows come from.
    """

    def __init__(self, files: list[Path]) -> None:
        self.left = LEAST_BUDGET + MOST_FOLD * sum(file.stat().st_size for file in files)

    def read(self, read: ReadRow) -> Row:
        """Read a row and count it.

        Raises:
            MsekitError: The row is unusable, or one too many.
        """
        row = read()
        self.left -= sum(frames_LD.nbytes for frames_LD in (row.audio, row.vision) if frames_LD is not None)
        if self.left < 0:
            raise MsekitError(f"the rows up to '{row.id:.60}' come to over {MOST_FOLD} times the size of their files")
        return row


class Contents:
    """Which samples are the same, by content: text and features."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, str]] = {}

    def seen_before(self, split: str, number: int, row: Row) -> tuple[str, str] | None:
        """Split and name of the first sample of the same content; None for a new one."""
        digest = hashlib.blake2b(row.text.encode(), digest_size=16)
        for frames_LD in (row.audio, row.vision):
            digest.update(b"\0" if frames_LD is None else repr(frames_LD.shape).encode())
            if frames_LD is not None:
                digest.update(np.ascontiguousarray(frames_LD).data)
        first = self._first.setdefault(digest.digest(), (split, named(number, row)))
        return None if first == (split, named(number, row)) else first


def named(number: int, row: Row) -> str:
    """How a row is named to the user."""
    return f"{number} ({row.id if len(row.id) <= _LONGEST_ID else row.id[: _LONGEST_ID - 1] + '…'})"


def names_of(mapping: Mapping[Any, Any]) -> str:
    """A mapping's keys, for a message."""
    return ", ".join(reprlib.repr(key).strip("'") for key in list(mapping)[:12]) or "nothing"


def mapping_of(value: object, where: str, what: str) -> Mapping[str, Any]:
    """The value, which must be a mapping."""
    if not isinstance(value, Mapping):
        raise MsekitError(f"{what} holds a {type(value).__name__}, not a dict", where=where)
    return value


def text_of(value: object, where: str, key: str) -> str:
    """A str, a numpy string or UTF-8 bytes → str that can be written as UTF-8."""
    try:
        if isinstance(value, bytes):
            value = value.decode("utf-8")
        if isinstance(value, str):
            if len(value) > _LONGEST_TEXT:
                raise MsekitError(f"'{key}' has {len(value):,} characters", where=where, fix="This is no utterance")
            return str(value).encode("utf-8").decode("utf-8")
    except UnicodeError as error:
        raise MsekitError(f"'{key}' is not valid text: {error}", where=where) from error
    raise MsekitError(f"'{key}' is a {type(value).__name__}, not a text", where=where)


def name_of(value: object, where: str, key: str) -> str:
    """A text or a whole number → str."""
    return str(int(value)) if isinstance(value, (int, np.integer)) else text_of(value, where, key)


def identity_of(value: object, split: str, number: int, where: str) -> str:
    """A row's id; its split and number where it has none."""
    return f"{split}-{number:06d}" if value is None else name_of(value, where, "id")


def number_of(value: object) -> float | None:
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


def checked_frames(spec: DatasetSpec, value: object, length: object, where: str, key: str) -> np.ndarray | None:
    """One sample's frames [L, D] cut to their true length, [0, D] of an array without any; None where there is none.

    Raises:
        MsekitError: The shape, the type, the width or the length is wrong.
    """
    where = f"{where}, key '{key}'"
    if value is None:
        return None
    frames_LD = value if isinstance(value, np.ndarray) else _from_lists(value, where, key)
    if frames_LD.dtype.kind not in "fiub":
        raise MsekitError(f"'{key}' holds {frames_LD.dtype}, not numbers", where=where)
    shape = shape_of_frames(frames_LD.shape)
    if len(shape) != 2:
        raise wrong_shape(frames_LD.shape, where, key)
    frames_LD, (frames, width) = frames_LD.reshape(shape), shape
    if length is not None:
        count = number_of(length)
        if count is None or not math.isfinite(count) or count < 0 or count != int(count):
            raise MsekitError(f"the length of '{key}' is {reprlib.repr(length)}, not a number of frames", where=where)
        if count > frames:
            raise MsekitError(f"the length of '{key}' is {int(count)}, but it has {frames} frames", where=where)
        frames = int(count)
    if frames * width > MOST_VALUES:
        raise MsekitError(
            f"'{key}' has {frames} frames of {width} features: more than one sample can have", where=where
        )
    expected = spec.audio_width if key == "audio" else spec.vision_width
    if expected is not None and width != expected and (frames or width):
        note = f" {spec.width_note}" if spec.width_note else ""
        raise RowError(
            f"'{key}' has {width} features per frame, '{spec.name}' has {expected}",
            where=where,
            fix=f"This is another feature file.{note} Get the right one, or describe this one in a YAML of its own",
            cause=f"'{key}' has not the {expected} features per frame that '{spec.name}' has",
            value=width,
        )
    if frames and not width:
        raise MsekitError(f"'{key}' has frames without features", where=where)
    return frames_LD[:frames] if frames or not len(frames_LD) else None  # a length of 0 says that there are none


def with_features(row: Row, frames: Mapping[str, np.ndarray | None]) -> Row:
    """Give a row its features; an array of no frames is noted, as nothing else says why the modality is absent."""
    for key, frames_LD in frames.items():
        if frames_LD is not None and not len(frames_LD):
            row.empty, frames_LD = (*row.empty, key), None
        setattr(row, key, frames_LD)
    return row


def shape_of_frames(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the leading axes of length 1 that batches of one leave: (1, L, D) → (L, D)."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return tuple(shape)


def wrong_shape(shape: tuple[int, ...], where: object, key: str) -> RowError:
    """The refusal of an array that is not (frames, features)."""
    return RowError(
        f"'{key}' has shape {shape}, not (frames, features)",
        where=where,
        fix="Save two axes, frames and then features, for each sample",
        cause=f"'{key}' has not the shape (frames, features)",
        value=str(shape),
    )


def _from_lists(value: object, where: str, key: str) -> np.ndarray:
    """A list of frames, each a list of numbers, → [L, D]; a list of numbers → [D]. Nothing nested deeper is read."""
    if not isinstance(value, (list, tuple)):
        raise MsekitError(f"'{key}' is a {type(value).__name__}, not an array", where=where)
    while len(value) == 1 and _holds_frames(value[0]):
        value = list(value[0])  # a batch of one
    if all(isinstance(part, (int, float, np.number)) for part in value):
        value = [value]
        return _numbers(value, where, key)[0]
    return _numbers(value, where, key)


def _holds_frames(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], (list, tuple))


def _numbers(frames: Sequence[Any], where: str, key: str) -> np.ndarray:
    width = len(frames[0]) if isinstance(frames[0], (list, tuple, np.ndarray)) else 0
    if len(frames) * width > MOST_VALUES:
        raise MsekitError(f"'{key}' has {len(frames)} frames of {width} features", where=where)
    for number, frame in enumerate(frames):
        if not isinstance(frame, (list, tuple, np.ndarray)) or len(frame) != width:
            raise MsekitError(f"'{key}' is not an array: frame {number} is unlike frame 0", where=where)
        if not all(isinstance(part, (int, float, np.number)) for part in frame):
            raise MsekitError(f"'{key}' is not an array of numbers: see frame {number}", where=where)
    try:
        return np.asarray(frames, dtype=np.float64).reshape(len(frames), width)
    except OverflowError as error:
        raise MsekitError(f"'{key}' holds a number beyond any float: {error}", where=where) from error
