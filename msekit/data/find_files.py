"""Which layout a set's files have; and what to say of a set that is not found: what lies near it, and the options that
name it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from msekit.errors import MsekitError, nearest

if TYPE_CHECKING:
    from msekit.data.catalogue import Layout, Task

_MOST_NAMED = 8
_SAYS_LABELS = "--labels joy,anger,… (or --range -3,3)"


def layout_of(source: Path, task: Task) -> Layout:
    """The layout that a folder's or file's name shows: one's own, or else the published one of the task."""
    if any(source.glob("samples.*")):
        return "folder"
    if source.suffix in (".csv", ".tsv") or any(source.glob("train.[ct]sv")):
        return "csv"
    return "erc-pickle" if task == "erc" else "msa-pickle"


def unknown_set(name: str, known: Iterable[str]) -> MsekitError:
    """The refusal of a name that no set has: files of that name lie beside, or a name of the catalogue is near."""
    place = Path(name).expanduser()
    if place.exists():
        own = place.stem if place.is_file() else place.resolve().name
        return MsekitError(
            f"'{name}' is a {'folder' if place.is_dir() else 'file'}, and no known data set",
            fix=f"Say what it is: --dataset {own} --source {name} {_SAYS_LABELS}. Or give the path of a YAML.",
        )
    fix = f"{nearest(name, known)} A YAML's path works too, or files of your own: --source PATH {_SAYS_LABELS}."
    return MsekitError(f"unknown data set '{name}'", fix=fix)


def without_files(name: str) -> str:
    """Advice on a set whose files are not said."""
    advice = "Say where they lie with --source PATH"
    return f"{advice}; {name} lies here: --source {name}" if Path(name).exists() else advice


def refuse_missing(source: Path) -> None:
    """Refuse a place that is not there.

    Raises:
        MsekitError: It is not, with what is called nearly so beside it.
    """
    if source.exists():
        return
    parent = next((folder for folder in source.parents if folder.is_dir()), Path("."))
    missing = source.relative_to(parent).parts[0] if source.is_relative_to(parent) else source.name
    near = get_close_matches(missing, [path.name for path in parent.iterdir()], n=3, cutoff=0.6)
    fix = f"Did you mean {' or '.join(str(parent / name) for name in near)}?" if near else f"Look into {parent}"
    raise MsekitError("there is no such file or folder", where=source, fix=fix)


def refuse_bare(source: Path) -> None:
    """Refuse a folder in which there is no file that a set is read from.

    Raises:
        MsekitError: There is none, with what there is.
    """
    if source.is_file() or any(source.glob("*.pkl")):
        return
    names = sorted(path.name for path in source.iterdir())
    more = ", …" if len(names) > _MOST_NAMED else ""
    raise MsekitError(
        f"no such file: neither samples.jsonl, .parquet or .arrow, nor train, valid and test.csv, nor a .pkl; the "
        f"folder holds {', '.join(names[:_MOST_NAMED]) or 'nothing'}{more}",
        where=source,
        fix="One file is named itself: --source FILE.csv",
    )
