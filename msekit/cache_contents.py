"""What lies in msekit's cache, how large it is, and how it is removed. All of it can be made or downloaded again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from msekit.errors import MsekitError, nearest
from msekit.paths import cache_root

COMPILED = "compiled"
KINDS = {
    "datasets": "data sets, as training maps them into memory",
    "given": "data sets given from Python",
    "states": "hidden states of texts",
    "downloads": "features and packages from elsewhere",
    "backbones": "LLMs that msekit built",
    COMPILED: "compiled passes",
}
"""Folder of the cache → what lies there."""
_DAY_S = 86_400
_BEING_MADE = ".making-"
"""How folders begin that a process is writing; one of yesterday was left by a process that died."""


@dataclass(frozen=True)
class Entry:
    """One thing in the cache."""

    kind: str
    name: str
    path: Path
    size: int
    """Bytes."""
    changed: float
    """Seconds since 1970 when its newest file was written."""

    @property
    def days(self) -> int:
        """Since it was written."""
        return int((time.time() - self.changed) // _DAY_S)


def entries(kinds: Iterable[str] = KINDS, older: int = 0) -> list[Entry]:
    """What lies in the cache, the largest first within a kind.

    Args:
        kinds: Of `KINDS`.
        older: Only what was written at least so many days ago.

    Raises:
        MsekitError: No such kind.
    """
    found = []
    for kind in kinds:
        if kind not in KINDS:
            raise MsekitError(f"nothing called '{kind}' in the cache", fix=nearest(kind, KINDS))
        folder = cache_root() / kind
        paths = [path for path in folder.iterdir() if path.suffix != ".lock"] if folder.is_dir() else []
        if kind == COMPILED and paths:  # torch's own arrangement, of many small files
            paths = [folder]
        paths = [path for path in paths if not path.name.startswith(_BEING_MADE) or _entry(kind, path).days]
        of_kind = [entry for entry in (_entry(kind, path) for path in paths) if entry.days >= older]
        found += sorted(of_kind, key=lambda entry: -entry.size)
    return found


def _entry(kind: str, path: Path) -> Entry:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files] or [path.stat()]
    size = sum(fact.st_size for fact in facts) if files else 0
    return Entry(kind, path.name, path, size, max(fact.st_mtime for fact in facts))


def remove(entry: Entry) -> bool:
    """Remove it, unless another process is writing it; whether it was removed.

    Raises:
        MsekitError: The system refuses.
    """
    beside = entry.path.parent
    locks = (entry.path / ".lock", beside / f".{entry.name}.lock", beside / f"{entry.name}.lock")
    held = []
    try:
        for lock in locks:
            if lock.exists():
                held.append(FileLock(lock))
                held[-1].acquire(timeout=0)
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink(missing_ok=True)
    except Timeout:
        return False
    except OSError as error:
        raise MsekitError(f"it cannot be removed: {error.strerror}", where=entry.path) from error
    finally:
        for taken in held:
            taken.release()
    return True
