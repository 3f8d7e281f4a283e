"""A run's folder: made only where it can be written, never over another run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit.errors import MsekitError

if TYPE_CHECKING:
    pass

REPORT = "report.json"
_NEEDED_BYTES = 256 << 20  # adapter, state and predictions of the largest published setting, with room to spare


def refuse_occupied(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds something already, unless it is to be continued.

    Raises:
        MsekitError: It holds a run or other files, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise MsekitError("the output is a file, not a folder", where=folder, fix="Choose another --output.")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        kind = "a finished run" if (folder / REPORT).is_file() else "an unfinished run or other files"
        raise MsekitError(
            f"the output folder already holds {kind}",
            where=folder,
            fix="Continue it with --resume, or choose another --output.",
        )


def prepare_run_folder(folder: Path, resume: bool) -> None:
    """Make a run folder, after checking everything that would otherwise fail at the end.

    Args:
        folder: The seed's folder.
        resume: Go on with the run it may hold.

    Raises:
        MsekitError: It holds something and `resume` was not asked for; it cannot be written; the disk is full.
    """
    refuse_occupied(folder, resume)
    missing = not_there_yet(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remove_empty(missing)
        raise MsekitError(
            f"the output folder cannot be written: {error.strerror}", where=folder, fix="Choose another --output."
        ) from error
    if free < _NEEDED_BYTES:
        remove_empty(missing)
        raise MsekitError(
            f"only {free >> 20} MB are free for the output, {_NEEDED_BYTES >> 20} MB are needed",
            where=folder,
            fix="Free some space, or choose another --output.",
        )


def not_there_yet(folder: Path) -> list[Path]:
    """The folder and those of its parents that do not exist, deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders, deepest first, that are empty."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def read_report(folder: Path) -> dict[str, Any]:
    """A run's `report.json`; empty where training has not finished yet.

    Raises:
        MsekitError: It is damaged.
    """
    if not (folder / REPORT).is_file():
        return {}
    try:
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MsekitError(f"the report is damaged: {error}", where=folder / REPORT) from error


def find_run(path: Path) -> Path:
    """The seed's folder that a RUN argument means: itself, or the one seed's folder in it.

    Raises:
        MsekitError: No run there, or several.
    """
    if (path / "adapter.json").is_file():
        return path
    seeds = sorted(folder.parent for folder in path.glob("seed-*/adapter.json"))
    if len(seeds) == 1:
        return seeds[0]
    if seeds:
        names = ", ".join(folder.name for folder in seeds)
        raise MsekitError(f"several runs lie here: {names}", where=path, fix="Name one of them.")
    raise MsekitError("no trained run here (adapter.json is missing)", where=path)


def find_runs(path: Path) -> tuple[list[Path], list[Path]]:
    """The run folders that a path stands for: itself, or the `seed-*` folders in it.

    Returns:
        The finished ones (they hold a report.json) and the unfinished ones.

    Raises:
        MsekitError: There is no such folder, or no finished run in it.
    """
    if not path.is_dir():
        raise MsekitError("no such run folder", where=path)
    if (path / REPORT).is_file():
        return [path], []
    folders = sorted(folder for folder in path.glob("seed-*") if folder.is_dir())
    finished = [folder for folder in folders if (folder / REPORT).is_file()]
    if not finished:
        state = f"{len(folders)} seed folder(s), none finished" if folders else "no report.json and no seed-* folders"
        raise MsekitError(
            f"no finished run here: {state}", where=path, fix="A run ends with `msekit train … --resume`."
        )
    return finished, [folder for folder in folders if folder not in finished]
