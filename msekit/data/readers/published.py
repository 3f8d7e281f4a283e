"""PublishedSet: published feature files → plain rows, checked, with padding cut off.

Two layouts are read (facts: "Published feature files"): `msa-pickle`, one file that holds all splits as columns,
and `erc-pickle`, one file per split that holds a list of samples. The files are mapped into memory and read row by
row: only the pages of a few rows are in memory at any time.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.find_files import refuse_bare, refuse_missing, without_files
from msekit.data.readers.labels import label_of
from msekit.data.readers.rows import (
    Budget,
    ReadRow,
    Row,
    Unread,
    checked_frames,
    identity_of,
    mapping_of,
    name_of,
    names_of,
    text_of,
    with_features,
)
from msekit.data.readers.unpickle import map_pickle
from msekit.errors import MsekitError, nearest
from msekit.words import reason

_PICKLES = (".pkl", ".pickle")
_ROWS_IN_MEMORY = 64  # rows read before their pages are given back


class PublishedSet:
    """The published files of a data set; each is read when its rows are first asked for, and only once.

    Args:
        spec: Which data set, where it lies and what it must look like.

    Raises:
        MsekitError: The files are not there.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        if spec.source is None:
            hub = f" (published as {spec.hub} on the hub)" if spec.hub else ""
            raise MsekitError(f"data set '{spec.name}' needs its feature files{hub}", fix=without_files(spec.name))
        refuse_missing(Path(spec.source))
        refuse_bare(Path(spec.source))
        find = _find_msa if spec.layout == "msa-pickle" else _find_erc
        try:
            self._files = find(spec, Path(spec.source))
        except OSError as error:
            raise MsekitError(f"the source cannot be read: {reason(error)}", where=spec.source) from error
        self._columns: Mapping[str, Any] | None = None
        self._pages: mmap.mmap | None = None
        self._budget = Budget(self.source_files)

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
        readers = self.readers(split)
        return (read() for read in readers)

    def readers(self, split: str) -> Iterator[ReadRow]:
        """One reader per row of a split: see `RowSource`.

        Raises:
            MsekitError: The file cannot be read, or the split in it is not what it must be.
        """
        if split not in SPLITS:
            raise MsekitError(f"no such split '{split}'", where=self.spec.name, fix=nearest(split, SPLITS))
        path = self._files[split]
        if self.spec.layout == "erc-pickle":
            samples, self._pages = map_pickle(path)
            if not isinstance(samples, (list, tuple)):
                raise MsekitError(f"the file holds a {type(samples).__name__}, not a list of samples", where=path)
            return self._each(len(samples), partial(_erc_row, self.spec, path, split, samples))
        columns = _msa_columns(self.columns(split), path, split)
        return self._each(len(columns["raw_text"]), partial(_msa_row, self.spec, path, split, columns))

    def columns(self, split: str) -> Any:
        """What an `msa-pickle` holds of a split, all keys, mapped.

        Raises:
            MsekitError: The file cannot be read, or lacks the split.
        """
        path = self._files[split]
        if self._columns is None:
            content, self._pages = map_pickle(path)
            self._columns = mapping_of(content, str(path), "the file")
        if split not in self._columns:
            contents = names_of(self._columns)
            raise MsekitError(f"split '{split}' is missing", where=path, fix=f"The file holds: {contents}")
        return self._columns[split]

    @property
    def bystanders(self) -> list[Path]:
        """None: the files of these layouts hold everything."""
        return []

    def unread(self) -> Unread:
        """Nothing."""
        return Unread()

    def _each(self, count: int, read: Callable[[int], Row]) -> Iterator[ReadRow]:
        for number in range(count):
            yield partial(self._budget.read, partial(read, number))
            if number % _ROWS_IN_MEMORY == 0 and self._pages is not None and hasattr(mmap, "MADV_DONTNEED"):
                self._pages.madvise(mmap.MADV_DONTNEED)  # the system's cache keeps the pages, our memory does not


def msa_files(spec: DatasetSpec) -> dict[str, str]:
    """Split → name of the file that holds it: all splits are in one."""
    return dict.fromkeys(SPLITS, spec.files or f"{spec.name}.pkl")


def erc_files(spec: DatasetSpec) -> dict[str, str]:
    """Split → name of its file."""
    return {split: f"{spec.files or spec.name}_{split}.pkl" for split in SPLITS}


def _find_msa(spec: DatasetSpec, source: Path) -> dict[str, Path]:
    if source.is_dir():
        pickles = sorted(path for path in source.iterdir() if path.suffix in _PICKLES)
        named = source / spec.files if spec.files else None
        if named is None and len(pickles) > 1:
            names = ", ".join(path.name for path in pickles)
            raise MsekitError(f"the folder holds several pickles: {names}", where=source, fix="Name one with --source")
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
    files = {split: source / name for split, name in erc_files(spec).items()}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise MsekitError("no such file", where=missing[0], fix=f"Looked for: {', '.join(map(str, files.values()))}")
    return files


def _msa_columns(table: object, path: Path, split: str) -> dict[str, Sequence[Any] | np.ndarray]:
    """The columns of one split that rows are made of, of one length."""
    columns = mapping_of(table, f"{path}, {split}", "the split")
    needed = {key: _column(columns, key, path, split) for key in ("raw_text", "regression_labels")}
    optional = ("id", "audio", "audio_lengths", "vision", "vision_lengths")
    taken = needed | {key: _column(columns, key, path, split) for key in optional if columns.get(key) is not None}
    count = len(taken["raw_text"])
    for key, column in taken.items():
        if len(column) != count:
            raise MsekitError(
                f"'{key}' has {len(column)} entries, 'raw_text' has {count}", where=f"{path}, {split}, key '{key}'"
            )
    return taken


def _msa_row(
    spec: DatasetSpec, path: Path, split: str, columns: dict[str, Sequence[Any] | np.ndarray], number: int
) -> Row:
    where = f"{path}, {split} row {number}"
    part = {key: column[number] for key, column in columns.items()}
    row = Row(
        id=identity_of(part.get("id"), split, number, where),
        text=text_of(part["raw_text"], where, "raw_text"),
        label=label_of(spec, part["regression_labels"], where, "regression_labels"),
        audio=None,
        vision=None,
    )
    given = {key: (part.get(key), part.get(f"{key}_lengths")) for key in MODALITIES}
    return with_features(row, {key: checked_frames(spec, *given[key], where, key) for key in MODALITIES})


def _column(columns: Mapping[str, Any], key: str, path: Path, split: str) -> Sequence[Any] | np.ndarray:
    where = f"{path}, {split}, key '{key}'"
    if columns.get(key) is None:
        raise MsekitError(f"key '{key}' is missing", where=where, fix=f"The split holds: {names_of(columns)}")
    column = columns[key]
    if isinstance(column, np.ndarray):
        if key in MODALITIES and column.dtype != object and column.ndim != 3:
            raise MsekitError(f"'{key}' has shape {column.shape}, not (samples, frames, features)", where=where)
        if key not in MODALITIES and column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim == 0:
            raise MsekitError(f"'{key}' is a single value, not one per sample", where=where)
    elif not isinstance(column, (list, tuple)):
        raise MsekitError(f"'{key}' is a {type(column).__name__}, not a list or an array", where=where)
    return column


def _erc_row(spec: DatasetSpec, path: Path, split: str, samples: Sequence[Any], number: int) -> Row:
    where = f"{path}, row {number}"
    sample = mapping_of(samples[number], where, "the row")
    for key in ("features", "label"):
        if sample.get(key) is None:
            raise MsekitError(f"key '{key}' is missing", where=where, fix=f"The row holds: {names_of(sample)}")
    features = mapping_of(sample["features"], f"{where}, key 'features'", "'features'")
    if features.get("text") is None:
        raise MsekitError("key 'text' is missing", where=where, fix=f"The features hold: {names_of(features)}")
    speaker, dialogue = sample.get("speaker"), sample.get("dialogue_id")
    row = Row(
        id=identity_of(sample.get("id"), split, number, where),
        text=text_of(features["text"], where, "text"),
        label=label_of(spec, sample["label"], where, "label"),
        audio=None,
        vision=None,
        speaker=None if speaker is None else name_of(speaker, where, "speaker"),
        dialogue_id=None if dialogue is None else name_of(dialogue, where, "dialogue_id"),
    )
    audio = checked_frames(spec, features.get("audio"), features.get("audio_len"), where, "audio")
    vision = checked_frames(spec, features.get("video"), features.get("video_len"), where, "video")
    return with_features(row, {"audio": audio, "vision": vision})
