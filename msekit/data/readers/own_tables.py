"""A table of samples → the fields of each row: CSV, JSON lines, Parquet or Arrow.

What a description says of a table is applied here: `encoding` and `delimiter` of a CSV, and `columns`, which of the
table's columns holds what. A name that is there twice is refused: whichever of the two were read, the other is lost.
"""

from __future__ import annotations

import codecs
import csv
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from msekit.data.bounds import parquet_batches
from msekit.data.catalogue import COLUMNS, MODALITIES, DatasetSpec
from msekit.data.targets import columns_of, questions_of
from msekit.errors import MsekitError
from msekit.json_file import parse_json
from msekit.words import reason

TABLES = {".csv": ",", ".tsv": "\t"}
"""Endings of tables of text, and what stands between their cells unless a description says otherwise."""
_LONGEST_LINE = 16 << 20  # bytes of a JSON line
_OTHER_NAMES = {
    "text": ("utterance", "sentence", "transcript", "content", "raw_text"),
    "label": ("emotion", "sentiment", "class", "target", "annotation"),
    "split": ("set", "subset", "mode", "fold"),
}


MODALITY_LABELS = ("label_text", "label_audio", "label_vision")
"""Columns with labels of single modalities, which those baselines read that learn them."""


class Sample(NamedTuple):
    """One row of a table."""

    where: str
    """For messages."""
    fields: Mapping[str, Any]
    """Those of `COLUMNS` and `MODALITY_LABELS` that it has."""
    held: Sequence[str]
    """All that it has, as the table calls them."""


def read_table(path: Path, spec: DatasetSpec, labelled: bool = True) -> Iterator[Sample]:
    """The samples of one file with their places.

    Args:
        path: The file.
        spec: What it is described as.
        labelled: A CSV must have the column of the labels.

    Raises:
        MsekitError: The file cannot be read, or says something twice.
    """
    sources = {key: spec.columns.get(key, key) for key in (*COLUMNS, *MODALITY_LABELS, *columns_of(spec))}
    unseen = set(spec.columns) - (set() if labelled else {"label", *columns_of(spec)})
    try:
        for where, row in _rows(path, spec, sources, labelled):
            fields = {key: row[name] for key, name in sources.items() if name in row}
            if None in row:  # what the csv module calls cells beyond the first line's
                fields[""] = row[None]
            unseen -= fields.keys()
            yield Sample(where, fields, [name for name in row if name is not None])
    except MsekitError:
        raise
    except FileNotFoundError:
        raise MsekitError("no such file", where=path) from None
    except UnicodeError as error:
        raise MsekitError(
            f"the file is no {spec.encoding or 'UTF-8'}: {reason(error)}", where=path, fix=_advice(path)
        ) from error
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # pyarrow's errors are one of these
        fix = _advice(path) if "NUL" in str(error) else None
        raise MsekitError(f"the file cannot be read: {reason(error)}", where=path, fix=fix) from error
    if unseen:
        key = min(unseen)
        raise MsekitError(f"no row has '{spec.columns[key]}', which `columns` names for {key}", where=path)


def check_header(names: Iterable[str | None], wanted: Iterable[str], where: object) -> None:
    """Refuse two columns of one name.

    Args:
        names: The columns, in their order.
        wanted: Those that are read.
        where: The table.

    Raises:
        MsekitError: A wanted name is there twice.
    """
    listed = list(names)
    for name in wanted:
        places = [str(place + 1) for place, other in enumerate(listed) if other == name]
        if len(places) > 1:
            what = f"there are {len(places)} columns '{name}': the {_enumerated(places)} of the table"
            raise MsekitError(what, where=where, fix="Keep one of them, or give them different names.")


def _enumerated(places: list[str]) -> str:
    return " and ".join([", ".join(f"{place}." for place in places[:-1]), f"{places[-1]}."])


def _rows(
    path: Path, spec: DatasetSpec, sources: Mapping[str, str], labelled: bool
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    if path.suffix == ".jsonl":
        return _json_lines(path)
    if path.suffix in (".parquet", ".arrow"):
        return (_parquet if path.suffix == ".parquet" else _arrow)(path, sources)
    return _delimited(path, spec, sources, labelled)


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[Any, Any]]]:
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
                sample = parse_json(line)
            except ValueError as error:
                raise MsekitError(f"the line is not JSON: {reason(error)}", where=where) from error
            if not isinstance(sample, dict):
                raise MsekitError(f"the line holds a {type(sample).__name__}, not an object", where=where)
            yield where, sample


def _delimited(
    path: Path, spec: DatasetSpec, sources: Mapping[str, str], labelled: bool
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    utf_8 = codecs.lookup(spec.encoding or "utf-8").name == "utf-8"
    encoding = "utf-8-sig" if utf_8 else spec.encoding  # with or without a mark at its beginning
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.DictReader(file, delimiter=spec.delimiter or TABLES.get(path.suffix.lower(), ","), strict=True)
        names = [name.removeprefix("\ufeff").strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        check_header(names, sources.values(), path)
        answers = _answers(spec, names, sources)
        for key in ("text", *answers, *spec.columns):
            needed = labelled or key not in answers or (key == "label" and alike(key, names))
            if sources[key] not in names and needed:
                raise MsekitError(f"column '{sources[key]}' is missing", where=path, fix=_header_advice(names, sources))
        for sample in reader:
            yield f"{path}, line {reader.line_num}", sample


def _answers(spec: DatasetSpec, names: list[str], sources: Mapping[str, str]) -> list[str]:
    """The columns of answers that a CSV must have: the label, or each target, whole or label by label."""
    if not spec.targets:
        return ["label"]
    by_label = {question.target for question in questions_of(spec) if sources.get(question.name) in names}
    return [target for target in spec.targets if target not in by_label]


def _header_advice(names: list[str], sources: Mapping[str, str]) -> str:
    """What the first line holds, and the option that makes it readable."""
    held = f"The first line holds: {', '.join(names)[:300] or 'nothing'}"
    if len(names) == 1:
        marks = [mark for mark in ";\t|," if mark in names[0]]
        if marks:
            mark = "tab" if marks[0] == "\t" else marks[0]
            return f"{held}. Say what stands between the cells: --delimiter '{mark}'"
    found = {key: alike(key, names) for key, name in sources.items() if name not in names}
    pairs = [f"{key}={name or 'NAME'}" for key, name in found.items() if name or key in ("text", "label")]
    return f"{held}. Say which column is which: --columns {shlex.quote(','.join(pairs))}"


def alike(key: str, names: Iterable[str]) -> str | None:
    """The first of a table's columns whose name says that it holds `text`, `label` or `split`; None for none."""
    wanted = (key, *_OTHER_NAMES.get(key, ()))
    return next((name for name in names if name.strip().lower() in wanted), None)


def listed(names: Iterable[str]) -> str:
    """A row's columns, for a message."""
    return ", ".join(f"{name:.40}" for name in list(names)[:12]) or "nothing"


def _advice(path: Path) -> str:
    """The encoding that a file that is not UTF-8 seems to have."""
    head = path.read_bytes()[: 1 << 20]
    likely = "cp1252"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        likely = "utf-16"
    elif b"\0" in head[:64]:
        likely = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
    else:
        text = head.decode("gb18030", "replace")
        if sum("\u4e00" <= letter <= "\u9fff" for letter in text) > 10 * text.count("\ufffd"):
            likely = "gb18030"
    return f"Save it as UTF-8, or name its encoding, perhaps --encoding {likely}"


def _parquet(path: Path, sources: Mapping[str, str]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        names = file.schema_arrow.names
        check_header(names, sources.values(), path)
        columns = [name for name in names if name in sources.values()]
        yield from _arrow_rows(parquet_batches(file, path, columns), path, sources, names)


def _arrow(path: Path, sources: Mapping[str, str]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        try:
            reader = pa.ipc.open_file(file)
        except pa.ArrowInvalid:  # the other kind of Arrow file, which the datasets library writes
            file.seek(0)
            batches: Any = pa.ipc.open_stream(file)
            names = batches.schema.names
        else:
            names = reader.schema.names
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        check_header(names, sources.values(), path)
        yield from _arrow_rows(batches, path, sources, names)


def _arrow_rows(
    batches: Any, path: Path, sources: Mapping[str, str], names: list[str]
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    frames = {sources[key] for key in MODALITIES}
    number = 0
    for batch in batches:
        batch.validate(full=True)  # offsets beyond the data would be followed out of the file
        columns = {name: batch.column(name) for name in batch.schema.names if name in sources.values()}
        for index in range(batch.num_rows):
            where = f"{path}, row {number}"
            row = dict.fromkeys(name for name in names if name not in columns)
            yield where, row | {n: _arrow_value(c[index], where, n, n in frames) for n, c in columns.items()}
            number += 1


def _arrow_value(scalar: Any, where: str, name: str, frames: bool) -> Any:
    """A plain value; lists of numbers, or of lists of them, as an array."""
    import pyarrow as pa

    values = getattr(scalar, "values", None)
    if not scalar.is_valid or values is None or not frames:
        return scalar.as_py()
    if not hasattr(values, "flatten") or not pa.types.is_nested(values.type):
        return values.to_numpy(zero_copy_only=False)
    if pa.types.is_nested(getattr(values.type, "value_type", values.type)):
        return scalar.as_py()  # nested deeper, or no list: looked at value by value
    widths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False)) if len(values) else np.zeros(1, int)
    if len(widths) > 1:
        raise MsekitError(f"'{name}' is not an array: its frames differ in length", where=where)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), int(widths[0]))
