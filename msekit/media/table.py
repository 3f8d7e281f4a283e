"""Clip, and the two ways to a list of clips: a table with a line per clip, or every clip of a folder."""

from __future__ import annotations

import csv
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msekit.data.readers.own_tables import check_header
from msekit.errors import MsekitError
from msekit.media.decode import CLIP_SUFFIXES
from msekit.words import reason

_NEEDED = ("file", "text", "label", "split")
_OPTIONAL = ("id", "speaker", "dialogue_id", "fold", "session")


@dataclass(frozen=True)
class Clip:
    """A clip, with its text and label where the table has them."""

    id: str
    path: Path
    text: str = ""
    label: str | None = None
    split: str | None = None
    speaker: str | None = None
    dialogue_id: str | None = None
    fold: str | None = None
    session: str | None = None
    start: float | None = None
    """Seconds into the recording that it was cut from; None for a clip that is whole."""
    end: float | None = None

    def fields(self) -> dict[str, Any]:
        """Its line of `samples.jsonl`, but for the features."""
        return {key: value for key, value in asdict(self).items() if key != "path" and value is not None}


def read_table(table: Path, folder: Path) -> list[Clip]:
    """The clips of a CSV with the columns file (relative to the folder), text, label, split, and optionally id,
    speaker, dialogue_id, fold, session.

    Raises:
        MsekitError: The table cannot be read, lacks a column or a value, or names a clip outside the folder or twice.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t" if table.suffix == ".tsv" else ",")
            check_header(rows.fieldnames or (), (*_NEEDED, *_OPTIONAL), table)
            lines = [(f"{table}, line {rows.line_num}", row) for row in rows]
            columns = rows.fieldnames or []
    except UnicodeDecodeError as error:
        raise MsekitError(f"the table is no UTF-8: {reason(error)}", where=table, fix="Save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise MsekitError(f"the table cannot be read: {reason(error)}", where=table) from error
    if missing := [name for name in _NEEDED if name not in columns]:
        raise MsekitError(
            f"no column '{missing[0]}'", where=table, fix=f"The table has: {', '.join(map(str, columns))}"
        )
    return _checked([_clip(row, folder, where) for where, row in lines], table)


def clips_of(folder: Path) -> list[Clip]:
    """Every clip of a folder, by name, without text or label.

    Raises:
        MsekitError: The folder has no clip.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in CLIP_SUFFIXES and path.is_file())
    return _checked([Clip(_identity(str(path.relative_to(folder))), path) for path in paths], folder)


def _clip(row: dict[str, Any], folder: Path, where: str) -> Clip:
    if empty := [name for name in ("file", "label", "split") if not row[name]]:
        raise MsekitError(f"'{empty[0]}' is empty", where=where)
    path = (folder / row["file"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise MsekitError(f"'{row['file']}' lies outside the folder", where=where)
    if not path.is_file():
        raise MsekitError(f"no such clip: {row['file']}", where=where)
    optional = {name: row.get(name) or None for name in _OPTIONAL}
    identity = _identity(optional.pop("id") or row["file"])
    return Clip(identity, path, row["text"] or "", row["label"], row["split"], **optional)


def _identity(name: str) -> str:
    """A clip's id, which is safe as a file's name: parts/clip 1.mp4 → parts-clip_1."""
    stem = str(Path(name).with_suffix("")) if Path(name).suffix.lower() in CLIP_SUFFIXES else name
    return re.sub(r"[^\w.-]", "_", stem.replace("/", "-")).lstrip(".") or "_"


def _checked(clips: list[Clip], where: Path) -> list[Clip]:
    if not clips:
        raise MsekitError("no clips", where=where, fix=f"Known endings: {', '.join(CLIP_SUFFIXES)}")
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise MsekitError(f"two clips are called '{clip.id}'", where=where, fix="Give them different ids.")
        seen.add(clip.id)
    return clips
