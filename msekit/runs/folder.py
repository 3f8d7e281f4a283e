"""A run's folder: made only where it can be written, never over another run; found by what a user names. No torch.

find_run   a RUN argument → the one seed's folder that it means
find_runs  likewise → all seeds' folders, finished and unfinished
fetch_run  a folder or a hub repository → a local folder with a plug-in
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from msekit.errors import MsekitError
from msekit.runs.files import ADAPTER, DESCRIPTION, LOCK, REPORT

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_NAMED = 8
_NEEDED_BYTES = 256 << 20  # adapter, state and predictions of the largest published setting, with room to spare


def refuse_occupied(folder: Path, resume: bool, fix: str = "Choose another --output.") -> None:
    """Refuse a folder that holds something already, unless it is to be continued.

    Args:
        folder: The folder.
        resume: Go on with the run it may hold.
        fix: What to do about one that holds something.

    Raises:
        MsekitError: It holds a run or other files, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise MsekitError("the output is a file, not a folder", where=folder, fix="Choose another --output.")
    if not resume and folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        kind = "a finished run" if (folder / REPORT).is_file() else "an unfinished run or other files"
        raise MsekitError(
            f"the output folder already holds {kind}",
            where=folder,
            fix=fix,
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


def find_run(path: Path) -> Path:
    """The seed's folder that a RUN argument means: itself, or the one seed's folder in it.

    Raises:
        MsekitError: No run there, or several.
    """
    if (path / DESCRIPTION).is_file():
        return path
    seeds = sorted(folder.parent for folder in path.glob(f"seed-*/{DESCRIPTION}"))
    if len(seeds) == 1:
        return seeds[0]
    if seeds:
        names = ", ".join(folder.name for folder in seeds)
        raise MsekitError(f"several runs lie here: {names}", where=path, fix="Name one of them.")
    raise MsekitError(f"no trained run here ({DESCRIPTION} is missing)", where=path, fix=_below(path, DESCRIPTION))


def _below(path: Path, file: str) -> str | None:
    """The runs in folders of a folder, for advice: those of which this file is there; None where there are none."""
    names = sorted({found.parent.parent.name for found in path.glob(f"*/seed-*/{file}")})
    if not names:
        return None
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"Runs below it: {', '.join(names[:_MOST_NAMED])}{more}."


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
        state = f"{len(folders)} seed folder(s), none finished" if folders else f"no {REPORT} and no seed-* folders"
        ended = "A run ends with `msekit train … --resume`." if folders else None
        raise MsekitError(f"no finished run here: {state}", where=path, fix=_below(path, REPORT) or ended)
    return finished, [folder for folder in folders if folder not in finished]


def fetch_run(run: str | Path, revision: str | None = None) -> Path:
    """The local folder of a run; a hub repository's description and tensors are downloaded, and nothing else.

    Raises:
        MsekitError: Neither a folder with a run nor a repository with a plug-in.
    """
    path = Path(run)
    if path.exists() or not _REPOSITORY.fullmatch(str(run)) or str(run).startswith("."):
        if not path.is_dir():
            raise MsekitError("no such run", where=run, fix="Give a run's folder, or a hub repository user/name.")
        return find_run(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from msekit.downloads import no_bar

    try:
        wanted = [DESCRIPTION, ADAPTER]
        folder = Path(snapshot_download(str(run), revision=revision, allow_patterns=wanted, tqdm_class=no_bar()))
    except RepositoryNotFoundError as error:
        raise MsekitError(
            "neither a folder nor a repository on the hub",
            where=run,
            fix="If it is private, log in with `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise MsekitError(f"no such revision '{revision}'", where=run) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError, OSError) as error:
        raise MsekitError(
            "no such folder, and the hub cannot be reached", where=run, fix="Check the name and the network."
        ) from error
    for name in wanted:
        if not (folder / name).is_file():
            raise MsekitError(f"the repository holds no plug-in: {name} is missing", where=run)
    return folder
