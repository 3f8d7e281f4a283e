"""The files of MERTools (Lian et al. 2024): `label….npz`, corpus → name → `emo`, `val`; transcripts as CSV.

The dictionaries of the archive are pickles, and are read without executing anything in them.
"""

from __future__ import annotations

import csv
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from msekit.data.readers.own_tables import check_header
from msekit.data.readers.unpickle import map_pickle
from msekit.errors import MsekitError

_UNSAID = -10
"""The valence that MERTools writes where a challenge keeps the labels to itself."""
_MOST_BYTES = 256 << 20
_OWN = {"en": "english", "zh": "chinese"}
_ANY = ("text", "sentence")
"""Columns that do not say their language."""


def read_labels(path: Path) -> dict[str, dict[str, Any]]:
    """Corpus → name → what is said of it.

    Raises:
        MsekitError: The file is no such archive, or holds anything but dictionaries of texts and numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _corpus(archive, info, path) for info in archive.infolist()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise MsekitError(f"the label file cannot be read: {error}", where=path) from error


def is_unsaid(clips: dict[str, Any]) -> bool:
    """Whether a corpus has placeholders in the place of labels."""
    return bool(clips) and all(isinstance(clip, dict) and clip.get("val") == _UNSAID for clip in clips.values())


def read_texts(path: Path, language: Literal["en", "zh"] | str) -> dict[str, str]:
    """Name → text, from the column of a language, or from one that does not say its language.

    Raises:
        MsekitError: The file cannot be read, or has no such columns.
    """
    wanted = (_OWN[language], *_ANY)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            check_header(columns, ("name", *_OWN.values(), *_ANY), path)
            column = next((name for name in wanted if name in columns), None)
            if column is None or "name" not in columns:
                held = ", ".join(map(str, columns)) or "nothing"
                other = next((key for key, name in _OWN.items() if name in columns), None)
                fix = f"The table has: {held}" + (f". Or say --language {other}" if other and not column else "")
                raise MsekitError(f"no columns `name` and a text ({', '.join(wanted)})", where=path, fix=fix)
            return {row["name"]: row[column] or "" for row in table}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MsekitError(f"the transcripts cannot be read: {error}", where=path) from error


def _corpus(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> dict[str, Any]:
    name = info.filename[:60]
    if info.file_size > _MOST_BYTES:
        raise MsekitError(f"'{name}' has {info.file_size >> 20} MB: that is no label file", where=path)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MsekitError(f"'{name}' is not packed as numpy does it", where=path)
    with archive.open(info) as member, tempfile.TemporaryDirectory(prefix="msekit-") as folder:
        _behind_the_header(member)
        pickled = member.read(_MOST_BYTES + 1)
        if len(pickled) > _MOST_BYTES:
            raise MsekitError(f"'{name}' is larger than it says", where=path)
        file = Path(folder) / path.name
        file.write_bytes(pickled)
        value: Any = map_pickle(file)[0]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise MsekitError(f"'{name}' is a {type(value).__name__}, not a corpus of names", where=path)
    return value


def _behind_the_header(member: IO[bytes]) -> None:
    """Read numpy's header; what follows it is a pickle.

    Raises:
        ValueError: It is none, or not of one object.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(member)
    if version not in readers:
        raise ValueError(f"its header has the version {version[0]}.{version[1]}")
    shape, _, dtype = readers[version](member)
    if dtype != np.dtype(object) or shape not in ((), (1,)):
        raise ValueError(f"it holds {dtype} of shape {shape}, not a corpus")
