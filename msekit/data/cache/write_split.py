"""Rows → one split's Arrow file, written row by row, with counts and the statistics of every feature.

The columns are those that `split_table.py` lists.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msekit.data.cache.label_counts import countable, in_order, label_names
from msekit.data.cache.split_table import CacheSettings, ModalityInfo, SplitInfo
from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.readers.rows import Contents, Row
from msekit.data.readers.set_apart import advice_on_empty
from msekit.data.readers.unlabelled import is_absent, remark
from msekit.errors import MsekitError

if TYPE_CHECKING:
    from datasets import Features

_CHUNK_BYTES = 16 << 20  # features that wait in memory until they are written as one record batch
_CONSTANT = 1e-12  # std / |mean| below which a feature is constant and its std is rounding

RowCallback = Callable[[str, int], None]
"""Called with the split and the rows written so far."""


def blocks(path: Path) -> Iterator[bytes]:
    """A file's content, 4 MiB at a time."""
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            yield block


def crc32(path: Path) -> int:
    """zlib.crc32 of a file's content."""
    value = 0
    for block in blocks(path):
        value = zlib.crc32(block, value)
    return value


class Moments:
    """Running count, mean and sum of squared deviations per feature, float64 (Chan et al.'s merge)."""

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = np.zeros((3, width))

    def add(self, x_LD: np.ndarray) -> None:
        """Count frames (L, D) in; NaN counts for nothing."""
        x_LD = x_LD.astype(np.float64)
        real_LD = ~np.isnan(x_LD)
        if real_LD.all():
            count = np.full(x_LD.shape[1], float(len(x_LD)))
            mean = x_LD.sum(axis=0) / np.maximum(count, 1)
            squares = np.square(np.subtract(x_LD, mean, out=x_LD), out=x_LD).sum(axis=0)
        else:
            count = real_LD.sum(axis=0)
            mean = np.where(real_LD, x_LD, 0.0).sum(axis=0) / np.maximum(count, 1)
            squares = np.where(real_LD, (x_LD - mean) ** 2, 0.0).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        delta = mean - self.mean
        self.squares += squares + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count += count

    def std(self) -> np.ndarray:
        """Population standard deviation [D]; 1 for constant features."""
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(std > _CONSTANT * np.abs(self.mean), std, 1.0)


class ModalityWriter:
    """Converts one modality's frames for storage, while checking their width and counting."""

    def __init__(self, key: str, dtype: str) -> None:
        self.key, self.dtype = key, np.dtype(dtype)
        self.width, self.longest, self.clipped = 0, 0, 0
        self.moments: Moments | None = None
        self.nonfinite, self.nonfinite_rows, self.absent = Counter[str](), Counter[str](), Counter[str]()
        self.empty = Counter[str]()
        """Of the absent ones those that have an array of no frames."""

    def store(self, row: Row, split: str, number: int) -> np.ndarray:
        """Frames [L, D] in the cache's dtype, NaN where non-finite; [0, D] where the sample has none."""
        frames_LD = getattr(row, self.key)
        if frames_LD is None:
            self.absent[split] += 1
            self.empty[split] += self.key in row.empty
            return np.zeros((0, self.width), self.dtype)
        self.width = self.width or frames_LD.shape[1]
        if frames_LD.shape[1] != self.width:
            raise MsekitError(
                f"'{self.key}' has {frames_LD.shape[1]} features per frame, earlier rows have {self.width}",
                where=f"{split} row {number}, id '{row.id}'",
            )
        self.longest = max(self.longest, len(frames_LD))
        with np.errstate(over="ignore", invalid="ignore"):
            stored_LD = frames_LD.astype(self.dtype)
        if not np.isfinite(stored_LD).all():
            self._clean(frames_LD, stored_LD, split)
        if split == "train":
            self.moments = self.moments or Moments(self.width)
            self.moments.add(stored_LD)
        return stored_LD

    def _clean(self, frames_LD: np.ndarray, stored_LD: np.ndarray, split: str) -> None:
        """Clip finite values to the range of the dtype, and write NaN for values that are not finite, in place."""
        finite_LD = np.isfinite(frames_LD)
        beyond_LD = finite_LD & ~np.isfinite(stored_LD)
        self.clipped += int(beyond_LD.sum())
        stored_LD[beyond_LD] = np.sign(frames_LD[beyond_LD]) * np.finfo(self.dtype).max
        if not finite_LD.all():
            self.nonfinite[split] += int((~finite_LD).sum())
            self.nonfinite_rows[split] += 1
            stored_LD[~finite_LD] = np.nan

    def remarks(self) -> Iterator[str]:
        """A sentence for what was stored otherwise than it was given."""
        if self.clipped:
            yield f"{self.clipped} {self.key} values were cut to the range of {self.dtype}"
        if count := self.empty.total():
            by_split = ", ".join(f"{split} {self.empty[split]}" for split in SPLITS if self.empty[split])
            said = "1 array has no frames and counts" if count == 1 else f"{count} arrays have no frames and count"
            yield f"{self.key}: {said} as absent ({by_split})"

    def info(self) -> ModalityInfo:
        """The counts and statistics of all rows so far."""
        moments = self.moments or Moments(self.width)
        return ModalityInfo(
            width=self.width,
            mean=moments.mean.tolist(),
            std=moments.std().tolist(),
            nonfinite={split: self.nonfinite[split] for split in SPLITS},
            nonfinite_rows={split: self.nonfinite_rows[split] for split in SPLITS},
            absent={split: self.absent[split] for split in SPLITS},
            longest=self.longest,
        )


def _features(spec: DatasetSpec, settings: CacheSettings) -> Features:
    from datasets import Features, List, Value

    frames = {key: List(Value(settings.dtype)) for key in MODALITIES}
    lengths = {f"{key}_length": Value("int32") for key in MODALITIES}
    texts = {"id": Value("string"), "text": Value("large_string")}
    label = List(Value("float64")) if spec.targets else Value("float64")
    return Features(**texts, label=label, **frames, **lengths, speaker=Value("string"), dialogue_id=Value("string"))


class Gathered:
    """What all splits of a set have in common while they are written, one after the other.

    Args:
        dtype: Of the stored features.
    """

    def __init__(self, dtype: str) -> None:
        self.audio, self.vision = ModalityWriter("audio", dtype), ModalityWriter("vision", dtype)
        self.contents = Contents()
        self.warnings: list[str] = []
        """A sentence for everything odd so far."""


def write_split(
    spec: DatasetSpec,
    rows: Iterator[Row],
    split: str,
    path: Path,
    gathered: Gathered,
    progress: RowCallback | None,
) -> SplitInfo:
    """Stream a split's rows into its Arrow file.

    Args:
        spec: The data set.
        rows: The split's rows.
        split: Its name.
        path: The Arrow file, which is written anew.
        gathered: What earlier splits gave; it gets the widths, statistics, contents and warnings of this one.
        progress: Called after every row.

    Returns:
        The record of the file.

    Raises:
        MsekitError: The split is empty, or a row cannot be read or stored.
    """
    from datasets.arrow_writer import ArrowWriter

    modalities = (gathered.audio, gathered.vision)
    features = _features(spec, CacheSettings(dtype=gathered.audio.dtype.name))
    counts, without = Counter(dict.fromkeys(countable(spec), 0)), 0
    ids, leaked = Counter[str](), Counter[str]()
    waiting: list[tuple[Row, list[np.ndarray]]] = []  # rows that the next record batch will hold
    waiting_bytes = 0
    with path.open("wb") as stream:
        writer = ArrowWriter(features=features, stream=stream)
        for number, row in enumerate(rows):
            stored = [modality.store(row, split, number) for modality in modalities]
            waiting.append((row, stored))
            waiting_bytes += sum(frames.nbytes for frames in stored)
            counts.update(label_names(spec, row.label))
            without += is_absent(row.label)
            ids[row.id] += 1
            first = gathered.contents.seen_before(split, number, row)
            if first is not None and first[0] != split:
                leaked[first[0]] += 1
            if waiting_bytes >= _CHUNK_BYTES:
                writer.write_table(_table(waiting, features))
                waiting, waiting_bytes = [], 0
            if progress is not None:
                progress(split, number + 1)
        if not ids:
            fix = advice_on_empty(spec, split)
            raise MsekitError(f"split '{split}' is empty", where=spec.source or spec.name, fix=fix)
        if waiting:
            writer.write_table(_table(waiting, features))
        writer.finalize(close_stream=False)
    gathered.warnings += _warnings(split, ids, leaked, counts)
    if without:
        gathered.warnings.append(remark(split, without, ids.total()))
    size, ordered = path.stat().st_size, in_order(spec, counts)
    return SplitInfo(samples=ids.total(), bytes=size, crc32=crc32(path), label_counts=ordered)


def _warnings(split: str, ids: Counter[str], leaked: Counter[str], labels: Counter[str]) -> Iterator[str]:
    """A sentence for everything odd about a split.

    Args:
        split: Its name.
        ids: Id → samples of the split that have it.
        leaked: Other split → samples of this one that it holds, too.
        labels: Label → samples of the split; classes without a sample are there with 0.
    """
    repeated = sum(count - 1 for count in ids.values())
    if repeated:
        yield f"{repeated} samples of {split} repeat an id of the same split"
    for other, count in leaked.items():
        yield f"{count} samples of {split} are in {other}, too, by content"
    unseen = [label for label, count in labels.items() if split == "train" and not count]
    if unseen:
        yield f"no sample of train is labelled {', '.join(unseen)}"


def _table(stored_rows: list[tuple[Row, list[np.ndarray]]], features: Features) -> Any:
    """Rows and their stored frames → one Arrow table."""
    import pyarrow as pa

    rows = [row for row, _ in stored_rows]
    columns: dict[str, Any] = {key: [getattr(row, key) for row in rows] for key in ("id", "text", "label", "speaker")}
    columns["dialogue_id"] = [row.dialogue_id for row in rows]
    for place, key in enumerate(MODALITIES):
        frames = [stored[place] for _, stored in stored_rows]
        offsets = np.cumsum([0, *(array.size for array in frames)], dtype=np.int32)
        values = np.concatenate([array.reshape(-1) for array in frames])
        columns[key] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, from_pandas=False))
        columns[f"{key}_length"] = [len(array) for array in frames]
    return pa.table({key: columns[key] for key in features}, schema=features.arrow_schema)
