"""Which layout a set's files have; and what to say of a set that is not found: what lies near it, and the options that
name it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from msekit.errors import MsekitError, UnsaidLabelsError, nearest

if TYPE_CHECKING:
    from msekit.data.catalogue import Layout, Task

DATASET = "--dataset "
"""What stands before a set's name in most commands."""
SAYS_LABELS = "--labels joy,anger,… (or --range -3,3)"
_MOST_NAMED = 8
_TABLES = (".jsonl", ".parquet", ".arrow")
_YAML = (".yaml", ".yml")


def layout_of(source: Path, task: Task) -> Layout:
    """The layout that a folder's or file's name shows: one's own, or else the published one of the task."""
    if any(source.glob("samples.*")) or _is_samples(source):
        return "folder"
    if source.suffix in (".csv", ".tsv") or any(source.glob("train.[ct]sv")):
        return "csv"
    return "erc-pickle" if task == "erc" else "msa-pickle"


def _is_samples(file: Path) -> bool:
    return file.stem == "samples" and file.suffix in _TABLES


def unknown_set(
    name: str, known: Iterable[str], read: Callable[[Path], object], asks: str = DATASET, by_options: bool = True
) -> MsekitError:
    """The refusal of a name that no set has: files of that name lie beside, or a name of the catalogue is near.

    Args:
        name: What was given as a data set.
        known: The names of the catalogue.
        read: Reads a description.
        asks: What stands before a set's name in the command: advice is what can be typed.
        by_options: Whether the command takes `--source` and `--labels` too.
    """
    place = Path(name).expanduser()
    if not place.exists():
        own = f", or files of your own: --source PATH {SAYS_LABELS}" if by_options else ""
        beside = [path.name for path in place.parent.glob("*") if path.is_dir()]
        near = [place.parent / one for one in get_close_matches(place.name, beside, n=1)]
        lies = [path for folder in near for path in _descriptions(folder, read)]
        said = f"Did you mean {asks}{_shell(lies)}? " if lies else ""
        return MsekitError(
            f"unknown data set '{name}'", fix=said + nearest(name, known, f"A YAML's path works too{own}.")
        )
    what = f"'{name}' is a {'folder' if place.is_dir() else 'file'}, and no known data set"
    if described := _descriptions(place, read):
        return MsekitError(what, fix=f"Give the description that lies in it: {asks}{_shell(described)}.")
    given = _with_rows(place)
    if by_options and name_of(place) in known:
        return MsekitError(what, fix=f"If that set lies there: {as_options(place, place, asks)}.")
    if by_options and len(given) == 1:
        return UnsaidLabelsError(what, where=given[0], fix=f"{as_options(place, given[0], asks, SAYS_LABELS)}.")
    holds = f"of {_shell(given)} " if given else "a samples.jsonl, .parquet or .arrow, a CSV, or a published .pkl "
    how = f"with --source and {SAYS_LABELS}" if by_options else ""
    return MsekitError(what, fix=f"Name one {holds}{how}, or describe it in a YAML: {asks}FILE.yaml.")


def as_options(asked: Path, source: Path, asks: str, labels: str = "") -> str:
    """How files of one's own are named by options: `--dataset moods --source moods/own.csv --labels …`."""
    return f"{asks}{name_of(asked)} --source {_shell([source])} {labels}".rstrip()


def name_of(place: Path) -> str:
    """A name for the set that lies in a folder or file, of what a name may be made of."""
    place = place.resolve()
    inside = place.is_file() and _is_samples(place)
    own = place.parent.name if inside else place.stem if place.is_file() else place.name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", own).strip("-.") or "own"


def _descriptions(folder: Path, read: Callable[[Path], object]) -> list[Path]:
    """The descriptions in a folder; where none can be read, the YAMLs that were to be some, which then say why."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _YAML and path.is_file())
    sound = []
    for file in files:
        try:
            read(file)
        except MsekitError:
            continue
        sound.append(file)
    return sound or files


def _with_rows(place: Path) -> list[Path]:
    """What can be given as a source: the place itself, or the tables in it that have names of their own."""
    if place.is_file():
        return [place] if place.suffix in (".csv", ".tsv", ".pkl", ".pickle") or _is_samples(place) else []
    whole = ("samples.*", "train.[ct]sv", "*.pkl")
    return [place] if any(any(place.glob(one)) for one in whole) else sorted(place.glob("*.[ct]sv"))


def _shell(paths: Iterable[Path]) -> str:
    """Paths as they are typed: `moods/a.yaml or moods/b.yaml`."""
    names = [shlex.quote(str(path)) for path in paths]
    return " or ".join(names[:_MOST_NAMED]) + (" or …" if len(names) > _MOST_NAMED else "")


def no_description(path: Path) -> MsekitError:
    """The refusal of a YAML that is not there, with those that are, the nearest first."""
    if not path.parent.is_dir():
        return MsekitError("no such data set description", where=path, fix=_near(path))
    beside = [one for one in path.parent.glob("*") if one.suffix.lower() in _YAML]
    near = get_close_matches(path.name, [one.name for one in beside], n=_MOST_NAMED, cutoff=0)
    fix = f"There is {_shell(path.parent / name for name in near)}." if near else _near(path)
    return MsekitError("no such data set description", where=path, fix=fix)


def without_files(name: str) -> str:
    """Advice on a set whose files are not said."""
    advice = "Say where they lie with --source PATH"
    return f"{advice}; {name} lies here: --source {name}" if Path(name).exists() else advice


def refuse_missing(source: Path) -> None:
    """Refuse a place that is not there.

    Raises:
        MsekitError: It is not, with what is called nearly so beside it.
    """
    if not source.exists():
        raise MsekitError("there is no such file or folder", where=source, fix=_near(source))


def _near(source: Path) -> str:
    """Advice on a place that is not there: what is called nearly so beside it."""
    parent = next((folder for folder in source.parents if folder.is_dir()), Path("."))
    missing = source.relative_to(parent).parts[0] if source.is_relative_to(parent) else source.name
    near = get_close_matches(missing, [path.name for path in parent.iterdir()], n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(str(parent / name) for name in near)}?" if near else f"Look into {parent}"


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
