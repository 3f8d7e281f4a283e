"""OwnSet: one's own data → plain rows, from a folder of samples with feature files or from CSV of text and label.

`folder`: `samples.jsonl`, `samples.parquet` or `samples.arrow` with a row per sample: text, label, split, and where
there are any id, speaker, dialogue_id; a row of test may lack the label. The features of a sample are in its columns
`audio` and `vision` (frames of numbers, or the path of a file in `audio/`, `vision/` or `features/`), or else in
`audio/<id>` and `vision/<id>` with an ending of `feature_files`. `csv`: one file with the columns text, label
and split, or train.csv, valid.csv and test.csv.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.find_files import refuse_missing, without_files
from msekit.data.readers.asked import answers_of
from msekit.data.readers.feature_files import file_and_array, read_features
from msekit.data.readers.find_tables import SPLIT_NAMES, find_csv, find_samples
from msekit.data.readers.folds import Folding
from msekit.data.readers.labels import label_of
from msekit.data.readers.own_tables import MODALITY_LABELS, Sample, listed, read_table
from msekit.data.readers.rows import (
    Budget,
    ReadRow,
    Row,
    RowError,
    Unread,
    checked_frames,
    identity_of,
    name_of,
    text_of,
    with_features,
)
from msekit.data.readers.set_apart import group_of, set_apart
from msekit.data.readers.unlabelled import NO_LABEL, is_absent, refuse_namesake, refused_label
from msekit.data.readers.unread import (
    FOLDERS,
    columns_like_features,
    elsewhere,
    is_feature_file,
    listing,
    unread_of,
)
from msekit.errors import MsekitError, nearest

_IDS_NAMED = 3


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
            raise MsekitError(f"data set '{spec.name}' needs its files", fix=without_files(spec.name))
        refuse_missing(Path(spec.source))
        self.folder = Path(spec.source) if Path(spec.source).is_dir() else Path(spec.source).parent
        self._tables = find_samples(self.folder) if spec.layout == "folder" else find_csv(Path(spec.source), spec)
        self._listed = listing(self.folder)
        self._files: dict[str, list[Path]] = defaultdict(list)
        """Feature files by their path without the ending, relative to the folder."""
        for path in filter(is_feature_file, self._listed):
            self._files[path.relative_to(self.folder).as_posix().removesuffix(path.suffix)].append(path)
        self._used: set[Path] = set()
        self._owners: dict[str, tuple[str, tuple[Any, ...]]] = {}
        """Id → the first row whose features are found by it: its place and its content."""
        self._ids: list[str] = []
        self._present: set[str] = set()
        self._apart: frozenset[str] = frozenset()
        self._folding: Folding | None = None
        self._remarks: list[str] = []
        self._counts: dict[str, tuple[int, int]] = {}
        """Split → its rows without a label, and its rows; counted where one is refused."""
        self._held: dict[str, None] = {}
        """The tables' columns, in their order."""
        self._budget = Budget(self.source_files)

    @property
    def source_files(self) -> list[Path]:
        """The samples' files, then the feature files by name."""
        features = filter(is_feature_file, self._listed) if self._with_files else ()
        return [*self.tables, *features]

    @property
    def tables(self) -> list[Path]:
        """The samples' files."""
        return list(dict.fromkeys(self._tables.values()))

    @property
    def bystanders(self) -> list[Path]:
        """Files in the folders of features that are not read."""
        return [path for path in self._listed if not (self._with_files and is_feature_file(path))]

    @property
    def _with_files(self) -> bool:
        return self.spec.layout == "folder"

    def unread(self) -> Unread:
        """What the rows of all splits, once they are read, left unread."""
        mapped = set(self.spec.columns.values())
        columns = columns_like_features(self._held, {*MODALITIES, *mapped} if self._with_files else mapped)
        if not self._with_files:
            made = "A CSV holds texts alone; with features it is samples.jsonl, .parquet or .arrow in a folder"
            kinds = [f"the column '{name}'" for _, name in columns]
            kinds += [f"{name}/" for name in FOLDERS if (self.folder / name).is_dir() and self._listed]
            return Unread((*self._remarks, *([f"{' and '.join(kinds)} are not read. {made}"] if kinds else ())))
        used = {path.relative_to(self.folder).parts[0] for path in self._used}
        unused = [path for path in self._listed if path not in self._used]
        absent = [key for key in MODALITIES if getattr(self.spec, f"{key}_width") == 0]
        left = unread_of(self.folder, unused, elsewhere(self.folder), used, self._ids, self._present, absent)
        warnings = (f"the column '{name}' is not read (--columns {key}={name} reads it)" for key, name in columns)
        return Unread((*self._remarks, *left.warnings, *warnings), left.error)

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
        for number, sample in self._of_split(split):
            if isinstance(sample, MsekitError):
                yield partial(_raise, sample)
            else:
                yield partial(self._budget.read, partial(self._row, split, number, sample))

    def modality_labels(self, split: str) -> list[list[float | None]]:
        """Labels of text, audio and vision by themselves, for each row of a split; None where there is none."""
        rows = []
        for _, sample in self._of_split(split):
            if not isinstance(sample, MsekitError):
                given = {key: sample.fields.get(key) for key in MODALITY_LABELS}
                rows.append(
                    [
                        None if value in (None, "") else label_of(self.spec, value, sample.where, key)
                        for key, value in given.items()
                    ]
                )
        return rows

    def _of_split(self, split: str) -> Iterator[tuple[int, Sample | MsekitError]]:
        """The samples of a split with their numbers; an error for a row that does not say its split."""
        number = 0
        for stated, sample in self._stated(split):
            self._held |= dict.fromkeys(sample.held)
            if isinstance(stated, MsekitError):
                if split == SPLITS[0] or len(self.tables) > 1:  # one table is read three times; reported once
                    yield number, stated
            elif stated == split:
                yield number, sample
                number += 1

    @property
    def folds(self) -> int:
        """How many folds the table has, once one of its rows is read."""
        return 0 if self._folding is None else self._folding.count

    def _split_by_fold(self, sample: Sample) -> str:
        if self._folding is None:
            self._folding = Folding.of(self.spec, self.tables)
            self._remarks.append(self._folding.remark)
        return self._folding.split_of(sample)

    def _stated(self, split: str) -> Iterator[tuple[str | MsekitError, Sample]]:
        """The rows of the table that a split is in, each with the split that it is of."""
        one_table = len(self.tables) == 1
        apart = self._set_apart() if self.spec.validation else frozenset()
        of_file = None if one_table else "train" if split == "valid" and self.spec.validation else split
        for sample in read_table(self._tables[split], self.spec, labelled=one_table or split != "test"):
            stated = _split_of(sample, "train" if self.spec.folds else of_file)
            if self.spec.folds and stated == "train":
                stated = self._split_by_fold(sample)
            if stated == "train" and apart and group_of(sample) in apart:
                stated = "valid"
            yield stated, sample

    def _set_apart(self) -> frozenset[str]:
        """The groups of train's rows that are the validation split; chosen once."""
        if not self._apart:
            of_file = None if len(self.tables) == 1 else "train"
            path = self._tables["train"]
            stated = ((_split_of(sample, of_file), sample) for sample in read_table(path, self.spec))
            self._apart, remark = set_apart(stated, self.spec.validation or 0, path)
            self._remarks.append(remark)
        return self._apart

    def _row(self, split: str, number: int, sample: Sample) -> Row:
        where, fields = sample.where, sample.fields
        optional = {key: fields.get(key) for key in ("id", "speaker", "dialogue_id")}
        name, speaker, dialogue = (None if value == "" else value for value in optional.values())
        identity = identity_of(name, split, number, where)
        if len(self._ids) < _IDS_NAMED:
            self._ids.append(identity)
        called = {key: self._called(sample, identity, key) for key in MODALITIES} if self._with_files else {}
        self._used.update(file for files in called.values() for file in files)  # its own, whatever is refused below
        given = {key: self._given(sample, files, key) for key, files in called.items()}
        if fields.get("text") is None:
            what = f"'{self.spec.columns.get('text', 'text')}' is missing"
            raise MsekitError(what, where=where, fix=f"The row holds: {listed(sample.held)}")
        row = Row(
            id=identity,
            text=text_of(fields["text"], where, "text"),
            label=self._label(split, sample),
            audio=None,
            vision=None,
            speaker=None if speaker is None else name_of(speaker, where, "speaker"),
            dialogue_id=None if dialogue is None else name_of(dialogue, where, "dialogue_id"),
        )
        for key, value in given.items():
            if fields.get(key) is None and isinstance(value, Path):
                self._owns(row, value, where)
            with_features(row, {key: self._frames(value, where, key)})
        return row

    def _label(self, split: str, sample: Sample) -> float | tuple[float, ...]:
        """The label of a row, of several targets a number for each question; `NO_LABEL` where one of test has none."""
        value, name = self._said(sample), self.spec.columns.get("label", "label")
        if isinstance(value, tuple):
            if split == "test" or not is_absent(value):
                return value
            name = ", ".join(self.spec.targets)
        elif not is_absent(value):
            return label_of(self.spec, value, sample.where, "label")
        elif split == "test":
            refuse_namesake(name, sample.held, sample.where)
            return NO_LABEL
        if split not in self._counts:
            absent = [is_absent(self._said(other)) for stated, other in self._stated(split) if stated == split]
            self._counts[split] = sum(absent), len(absent)
        raise refused_label(split, name, sample.held, self._counts[split], sample.where)

    def _called(self, sample: Sample, identity: str, key: str) -> list[Path]:
        """The files of features that are called like a sample."""
        if sample.fields.get(key) is None or ("/" not in identity and "\0" not in identity):
            return self._files.get(str(_inside(f"{key}/{identity}", sample.where, key)), [])
        return []

    def _said(self, sample: Sample) -> Any:
        """What a row says in its label's place, as it stands there; of several targets the numbers."""
        return answers_of(self.spec, sample.fields, sample.where) if self.spec.targets else sample.fields.get("label")

    def _given(self, sample: Sample, files: list[Path], key: str) -> Any:
        """The features of a sample as they are given: the path of a file, numbers, or None."""
        where, value = sample.where, sample.fields.get(key)
        ways = [str(path.relative_to(self.folder)) for path in files]
        if isinstance(value, str):
            value = self.folder / _inside(value, where, key)
            file = file_and_array(value)[0]
            self._used.add(file)
            files = [path for path in files if path != file]
            ways = [str(value.relative_to(self.folder)), *(str(path.relative_to(self.folder)) for path in files)]
            files = []
        elif value is not None and files:
            ways.insert(0, f"the column '{key}' of the row")
        if len(ways) > 1:
            fix = "Keep the one that is this sample's"
            raise RowError(
                f"'{key}' is there twice: {ways[0]}, {ways[1]}", where=where, fix=fix, cause=f"'{key}' is there twice",
                value=f"{ways[0]} and {ways[1]}",
            )  # fmt: skip
        return files[0] if files else value

    def _owns(self, row: Row, path: Path, where: str) -> None:
        """Refuse a row whose features would be those of another row with the same id."""
        content = (row.text, row.label, row.speaker, row.dialogue_id)
        first, other = self._owners.setdefault(row.id, (where, content))
        if first != where and other != content:
            raise RowError(
                f"two different rows have the id '{row.id:.80}' and so one file of features, {path.name}",
                where=f"{where}, and {first.rpartition('/')[2]}",
                fix="Give every row an id of its own, or name its files in the columns audio and vision",
                cause="different rows have one id and so one file of features",
                value=row.id,
            )

    def _frames(self, value: Any, where: str, key: str) -> np.ndarray | None:
        if isinstance(value, Path):
            value = read_features(value, key, where)
        if isinstance(value, list):  # in JSON
            value = [value] if value and not isinstance(value[0], list) else value or None
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value[None]  # one vector for the whole sample is one frame
        frames_LD = checked_frames(self.spec, value, None, where, key)
        if frames_LD is not None and len(frames_LD):
            self._present.add(key)
        return frames_LD


def _raise(error: MsekitError) -> Row:
    raise error


def _split_of(sample: Sample, of_file: str | None) -> str | MsekitError:
    where = sample.where
    if "" in sample.fields:
        return MsekitError("the line has more cells than the first", where=where, fix='Quote texts: "well, yes"')
    value = sample.fields.get("split") if of_file is None else of_file
    split = SPLIT_NAMES.get(value) if isinstance(value, str) else None
    if split is None:
        known = f"Known: {', '.join(SPLIT_NAMES)}"
        if value is None:
            return MsekitError("'split' is missing", where=where, fix=f"{known}. The row holds: {listed(sample.held)}")
        shown = f"{value!r:.60}"
        return RowError(f"unknown split {shown}", where=where, fix=known, cause="unknown splits", value=shown)
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
