"""Data given from memory → a folder of one's own in the cache, which is then read and checked like any other.

    a list of dicts, a pandas table, a `datasets.Dataset`, or a dict of them by split → samples.jsonl, features/*.npy

The folder is named by its content: the same samples are the same data set, also for a run that goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.catalogue import MODALITIES
from msekit.data.targets import SEVERAL
from msekit.errors import MsekitError
from msekit.paths import cache_root

Samples = Iterable[Mapping[str, Any]] | Any
"""Rows, a pandas table or a `datasets.Dataset`."""


def write_given(data: Samples | Mapping[str, Samples], answers: Collection[str] = ("label",)) -> Path:
    """Write samples into the cache.

    Args:
        data: Rows with `text`, `label`, `split` and what else a table of samples may hold; `audio` and `vision` are
            frames of numbers. Or a mapping from split to rows, which then need no `split`.
        answers: The columns of labels; of several targets (`answers_in`) they may hold lists and mappings.

    Returns:
        The folder.

    Raises:
        MsekitError: No samples, a row that is no mapping, or a value that cannot be written.
    """
    root = cache_root() / "given"
    root.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=root, prefix=".making-"))
    try:
        digest = _write(_rows(data, answers), making, set(answers) - {"label"})
        folder = root / digest
        if not folder.is_dir():
            try:
                os.replace(making, folder)
            except OSError:  # another process was quicker
                if not folder.is_dir():
                    raise
        return folder
    finally:
        shutil.rmtree(making, ignore_errors=True)


def answers_in(described: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a table that hold what its samples are asked, by what is said of the set."""
    targets, columns = described.get("targets"), described.get("columns") or {}
    if not isinstance(targets, Mapping):
        return ("label",)
    return tuple(str(columns.get(name, name)) for name in (SEVERAL, *targets))


def class_names(data: Samples | Mapping[str, Samples]) -> tuple[str, ...] | None:
    """The names of the classes, where a `datasets.Dataset` has them; None elsewhere."""
    for part in data.values() if isinstance(data, Mapping) else [data]:
        names = getattr((getattr(part, "features", None) or {}).get("label"), "names", None)
        if names:
            return tuple(names)
    return None


def _rows(data: Samples | Mapping[str, Samples], answers: Collection[str]) -> Iterator[dict[str, Any]]:
    if isinstance(data, Mapping):
        for split, part in data.items():
            for row in _rows(part, answers):
                yield row | {"split": split}
        return
    kinds = getattr(data, "features", None) or {}
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a pandas table
        data = data.to_dict(orient="records")
    for number, row in enumerate(data):
        if not isinstance(row, Mapping):
            raise MsekitError(f"sample {number} is a {type(row).__name__}, not a dict", where="dataset")
        yield {key: _worded(value, kinds.get(key), number) if key in answers else value for key, value in row.items()}


def _worded(value: Any, kind: Any, number: int) -> Any:
    """An answer with class numbers as names, where its kind in a `datasets.Dataset` has them, in what it holds too."""
    if (names := getattr(kind, "names", None)) is not None:
        return _named(value, tuple(names), number) if isinstance(value, int) else value
    if isinstance(kind, Mapping) and isinstance(value, Mapping):
        return {key: _worded(part, kind.get(key), number) for key, part in value.items()}
    within = kind[0] if isinstance(kind, list) and kind else getattr(kind, "feature", None)
    return [_worded(part, within, number) for part in value] if isinstance(value, list) and within else value


def _named(label: int, names: tuple[str, ...], number: int) -> str | None:
    """The class of a number; None for a negative one, which is how the hub writes that a sample has no label."""
    if label >= len(names):
        raise MsekitError(f"no label {label} among {len(names)} classes", where=f"dataset, sample {number}")
    return None if label < 0 else names[label]


def _write(rows: Iterator[dict[str, Any]], folder: Path, nested: Collection[str]) -> str:
    """Write the rows, of which the `nested` columns may hold lists and mappings; their digest."""
    (folder / "features").mkdir()
    digest, number = hashlib.sha256(), 0
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, start=1):
            for key in MODALITIES:
                if (frames := _frames(row.pop(key, None), number, key)) is not None:
                    row[key] = f"features/{number:07}-{key}.npy"
                    np.save(folder / row[key], frames)
                    digest.update(f"{key} {frames.shape} {frames.dtype.str} ".encode())
                    digest.update(frames.tobytes())
            plain = {key: _plain(value, number, key, key in nested) for key, value in row.items()}
            line = json.dumps(plain, ensure_ascii=False)
            digest.update(line.encode())
            file.write(line + "\n")
    if not number:
        raise MsekitError("there are no samples", where="dataset")
    return digest.hexdigest()[:32]


def _frames(value: Any, number: int, key: str) -> np.ndarray | None:
    """Frames as a float32 array; the reader checks their shape."""
    if value is None or (isinstance(value, float) and np.isnan(value)):  # pandas' word for nothing
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return np.ascontiguousarray(np.asarray(value, dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise MsekitError(f"'{key}' is no array of numbers: {error}", where=f"dataset, sample {number - 1}") from error


def _plain(value: Any, number: int, key: str, nested: bool) -> Any:
    """What JSON takes: numpy's numbers as Python's, pandas' nothing as None."""
    if isinstance(value, np.ndarray) and nested:
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)) and nested:
        return [_plain(part, number, key, nested) for part in value]
    if isinstance(value, Mapping) and nested:
        return {str(name): _plain(part, number, key, nested) for name, part in value.items()}
    if isinstance(value, float) and np.isnan(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise MsekitError(
        f"'{key}' is a {type(value).__name__}, not a text or a number",
        where=f"dataset, sample {number - 1}",
        fix="Leave the column out.",
    )
