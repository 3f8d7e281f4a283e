"""OwnSet: one's own data → plain rows, from a folder of samples with feature files or from CSV of text and label.

`folder`: `samples.jsonl`, `samples.parquet` or `samples.arrow` with a row per sample: text, label, split, and where
there are any id, speaker, dialogue_id. The features of a sample are in its columns `audio` and `vision` (frames of
numbers, or the path of a file in `audio/`, `vision/` or `features/`), or else in `audio/<id>` and `vision/<id>` with
the ending .npy, .npz or .safetensors. `csv`: one file with the columns text, label and split, or train.csv, valid.csv
and test.csv.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.readers.feature_files import FEATURE_SUFFIXES, read_features
from msekit.data.readers.rows import (
    Budget,
    ReadRow,
    Row,
    checked_frames,
    identity_of,
    label_of,
    name_of,
    names_of,
    text_of,
)
from msekit.errors import MsekitError, nearest

SAMPLE_FILES = ("samples.jsonl", "samples.parquet", "samples.arrow")
FOLDERS = (*MODALITIES, "features")
"""Where feature files lie; nothing else in a data set's folder counts as a part of it."""
_TABLES = {".csv": ",", ".tsv": "\t"}
_SPLIT_NAMES = {split: split for split in SPLITS} | dict.fromkeys(("val", "dev", "validation"), "valid")
_LONGEST_LINE = 16 << 20  # bytes of a JSON line
_COLUMNS = ("id", "text", "label", "split", "speaker", "dialogue_id", *MODALITIES)

Sample = tuple[str, Mapping[str, Any]]
"""Where a sample stands, for messages, and its fields."""


class OwnSet:
    """A data set of one's own, in one of the two layouts that the module's docstring describes.

    Args:
        spec: Which data set, and where it lies.

    Raises:
        MsekitError: Its files are not there.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        if spec.source is None:
            raise MsekitError(f"data set '{spec.name}' needs its files", fix="Say where they lie with --source PATH")
        self.folder = Path(spec.source) if Path(spec.source).is_dir() else Path(spec.source).parent
        self._tables = _find_samples(self.folder) if spec.layout == "folder" else _find_csv(Path(spec.source))
        self._budget = Budget(self.source_files)

    @property
    def source_files(self) -> list[Path]:
        """The samples' files, then the feature files by name."""
        files = list(dict.fromkeys(self._tables.values()))
        if self.spec.layout == "folder":
            candidates = (path for name in FOLDERS for path in (self.folder / name).rglob("*"))
            files += sorted(path for path in candidates if path.suffix in FEATURE_SUFFIXES)
        return files

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of one split, in the file's order.

        Raises:
            MsekitError: A file cannot be read, or something in it is missing or wrong.
        """
        readers = self.readers(split)
        return (read() for read in readers)

    def readers(self, split: str) -> Iterator[ReadRow]:
        """One reader per row of a split: see `RowSource`.

        Raises:
            MsekitError: A file cannot be read.
        """
        if split not in SPLITS:
            raise MsekitError(f"no such split '{split}'", where=self.spec.name, fix=nearest(split, SPLITS))
        path = self._tables[split]
        one_table = len(set(self._tables.values())) == 1
        number = 0
        for where, sample in _samples(path):
            stated = _split_of(sample, where, None if one_table else split)
            if isinstance(stated, MsekitError):
                if split == SPLITS[0] or not one_table:  # a table of all splits is read three times; reported once
                    yield partial(_raise, stated)
            elif stated == split:
                yield partial(self._budget.read, partial(self._row, split, number, sample, where))
                number += 1

    def _row(self, split: str, number: int, sample: Mapping[str, Any], where: str) -> Row:
        for key in ("text", "label"):
            if sample.get(key) is None:
                raise MsekitError(f"'{key}' is missing", where=where, fix=f"The row holds: {names_of(sample)}")
        optional = {key: sample.get(key) for key in ("id", "speaker", "dialogue_id")}
        name, speaker, dialogue = (None if value == "" else value for value in optional.values())
        identity = identity_of(name, split, number, where)
        return Row(
            id=identity,
            text=text_of(sample["text"], where, "text"),
            label=label_of(self.spec, sample["label"], where, "label"),
            audio=self._frames(sample, identity, where, "audio"),
            vision=self._frames(sample, identity, where, "vision"),
            speaker=None if speaker is None else name_of(speaker, where, "speaker"),
            dialogue_id=None if dialogue is None else name_of(dialogue, where, "dialogue_id"),
        )

    def _frames(self, sample: Mapping[str, Any], identity: str, where: str, key: str) -> np.ndarray | None:
        value = sample.get(key) if self.spec.layout == "folder" else None
        if isinstance(value, str):
            value = read_features(self.folder / _inside(value, where, key), key, where)
        elif value is None and self.spec.layout == "folder":
            stem = _inside(f"{key}/{identity}", where, key)
            files = [path for suffix in FEATURE_SUFFIXES if (path := self.folder / f"{stem}{suffix}").is_file()]
            if len(files) > 1:
                raise MsekitError(f"'{key}' is there twice: {files[0].name}, {files[1].name}", where=where)
            value = read_features(files[0], key, where) if files else None
        if isinstance(value, list):  # in JSON
            value = [value] if value and not isinstance(value[0], list) else value or None
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value[None]  # one vector for the whole sample is one frame
        return checked_frames(self.spec, value, None, where, key)


def _find_samples(folder: Path) -> dict[str, Path]:
    files = [folder / name for name in SAMPLE_FILES if (folder / name).is_file()]
    if not files:
        raise MsekitError("no samples file", where=folder, fix=f"Looked for {', '.join(SAMPLE_FILES)}")
    if len(files) > 1:
        raise MsekitError(f"there are both {files[0].name} and {files[1].name}", where=folder, fix="Keep one of them")
    return dict.fromkeys(SPLITS, files[0])


def _find_csv(source: Path) -> dict[str, Path]:
    if source.is_file():
        return dict.fromkeys(SPLITS, source)
    for suffix in _TABLES:
        files = {split: source / f"{split}{suffix}" for split in SPLITS}
        if all(path.is_file() for path in files.values()):
            return files
    raise MsekitError(
        "no such file", where=source, fix="Give one CSV with a column 'split', or a folder of train, valid and test.csv"
    )


def _raise(error: MsekitError) -> Row:
    raise error


def _split_of(sample: Mapping[str, Any], where: str, of_file: str | None) -> str | MsekitError:
    if None in sample:  # what the csv module calls cells beyond the first line's
        return MsekitError("the line has more cells than the first", where=where, fix='Quote texts: "well, yes"')
    value = sample.get("split") if of_file is None else of_file
    split = _SPLIT_NAMES.get(value) if isinstance(value, str) else None
    if split is None:
        what = "'split' is missing" if value is None else f"unknown split {value!r:.60}"
        return MsekitError(what, where=where, fix=f"Known: {', '.join(_SPLIT_NAMES)}")
    return split


def _inside(name: str, where: str, key: str) -> PurePosixPath:
    """A path that leads into a folder of features and not out of it."""
    path = PurePosixPath(name)
    if path.parts[:1] not in [(folder,) for folder in FOLDERS] or ".." in path.parts or "\0" in name:
        folders = ", ".join(f"{folder}/" for folder in FOLDERS)
        raise MsekitError(
            f"'{key}' lies outside the folders of features: {name!r:.80}", where=where, fix=f"They are {folders}"
        )
    return path


def _samples(path: Path) -> Iterator[Sample]:
    """The samples of one file with their places.

    Raises:
        MsekitError: The file cannot be read.
    """
    read = {".jsonl": _json_lines, ".parquet": _parquet, ".arrow": _arrow}.get(path.suffix, _delimited)
    try:
        yield from read(path)
    except MsekitError:
        raise
    except FileNotFoundError:
        raise MsekitError("no such file", where=path) from None
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # pyarrow's errors are one of these
        raise MsekitError(f"the file cannot be read: {str(error)[:300]}", where=path) from error


def _json_lines(path: Path) -> Iterator[Sample]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > _LONGEST_LINE:
                raise MsekitError("the line is longer than 16 MiB", where=where, fix="Put features into files")
            if not line.strip():
                continue
            try:
                sample = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MsekitError(f"the line is not JSON: {error}", where=where) from error
            if not isinstance(sample, dict):
                raise MsekitError(f"the line holds a {type(sample).__name__}, not an object", where=where)
            yield where, sample


def _delimited(path: Path) -> Iterator[Sample]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=_TABLES.get(path.suffix, ","), strict=True)
        for column in ("text", "label"):
            if column not in (reader.fieldnames or ()):
                names = ", ".join(reader.fieldnames or ("nothing",))
                raise MsekitError(
                    f"column '{column}' is missing", where=path, fix=f"The first line holds: {names:.300}"
                )
        for sample in reader:
            yield f"{path}, line {reader.line_num}", sample


def _parquet(path: Path) -> Iterator[Sample]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
        yield from _arrow_rows(file.iter_batches(batch_size=64, columns=columns), path)


def _arrow(path: Path) -> Iterator[Sample]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        try:
            reader = pa.ipc.open_file(file)
        except pa.ArrowInvalid:  # the other kind of Arrow file, which the datasets library writes
            file.seek(0)
            yield from _arrow_rows(pa.ipc.open_stream(file), path)
        else:
            yield from _arrow_rows((reader.get_batch(i) for i in range(reader.num_record_batches)), path)


def _arrow_rows(batches: Any, path: Path) -> Iterator[Sample]:
    number = 0
    for batch in batches:
        columns = {name: batch.column(name) for name in batch.schema.names if name in _COLUMNS}
        for index in range(batch.num_rows):
            where = f"{path}, row {number}"
            yield where, {name: _arrow_value(column[index], where, name) for name, column in columns.items()}
            number += 1


def _arrow_value(scalar: Any, where: str, name: str) -> Any:
    """A plain value; lists of numbers, or of lists of them, as an array."""
    import pyarrow as pa

    values = getattr(scalar, "values", None)
    if not scalar.is_valid or values is None or name not in MODALITIES:
        return scalar.as_py()
    if not hasattr(values, "flatten") or not pa.types.is_nested(values.type):
        return values.to_numpy(zero_copy_only=False)
    widths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False)) if len(values) else np.zeros(1, int)
    if len(widths) > 1:
        raise MsekitError(f"'{name}' is not an array: its frames differ in length", where=where)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), int(widths[0]))
