"""One process at a time trains into a run's folder: it holds a lock there, which ends with it in any case. No torch.

The lock is the kernel's (flock) on a file that names its holder, so a holder that was killed holds nothing, and whoever
comes next takes the file over. Where there is no flock (Windows), filelock locks the same file, and nobody is
named.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from msekit.errors import MsekitError
from msekit.runs.files import LOCK
from msekit.runs.folder import not_there_yet, prepare_run_folder, remove_empty

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)
_A_LOOK_S = 0.5
"""Longest that whoever looks whether a folder is held holds it itself."""


@contextmanager
def held_for_training(folder: Path, resume: bool) -> Iterator[None]:
    """Make a run's folder and hold it; a run that leaves nothing in it leaves no folder either.

    Args:
        folder: The seed's folder.
        resume: Go on with the run it may hold; what killed processes left half-written there is removed.

    Raises:
        MsekitError: Another process holds it, or see `prepare_run_folder`.
    """
    refuse_held(folder)
    missing = not_there_yet(folder)
    try:
        prepare_run_folder(folder, resume)
        with _held_by_flock(folder) if fcntl is not None else _held_elsewhere(folder, _A_LOOK_S):
            for partial in folder.rglob(".*.partial"):
                partial.unlink(missing_ok=True)
            yield
    finally:
        remove_empty(missing)


def refuse_held(folder: Path) -> None:
    """Refuse a folder that another process trains into.

    Raises:
        MsekitError: One does.
    """
    if fcntl is None:
        if (folder / LOCK).exists():
            with _held_elsewhere(folder, 0):
                return
        return
    with suppress(OSError):  # no such file, or a file system without locks
        file = os.open(folder / LOCK, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(folder) from None
        finally:
            os.close(file)


@contextmanager
def _held_by_flock(folder: Path) -> Iterator[None]:
    held = _take(folder)
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # while it is held: the next process then makes a file of its own
        os.close(held)


@contextmanager
def _held_elsewhere(folder: Path, timeout: float) -> Iterator[None]:
    """Hold a folder on a system without flock, waiting so many seconds for another holder."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise _held(folder) from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # someone else took it meanwhile
            (folder / LOCK).unlink()


def _take(folder: Path) -> int:
    """Lock the folder; the open file that holds the lock."""
    path = folder / LOCK
    give_up = time.monotonic() + _A_LOOK_S
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError as error:
            fix = "Remove it where no process of theirs is at work, or choose another --output."
            raise MsekitError("the folder's lock is another user's", where=path, fix=fix) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                break
        except BlockingIOError:
            if time.monotonic() > give_up:
                os.close(file)
                raise _held(folder) from None
            time.sleep(_A_LOOK_S / 10)
        except FileNotFoundError:
            pass
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s): see to it that no other process trains into it", folder, error)
            break
        os.close(file)  # a look held it, or the holder before gave it back and removed it meanwhile
    os.truncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _held(folder: Path) -> MsekitError:
    """What to tell whoever finds a folder held."""
    holder = ""
    with suppress(OSError):
        holder = (folder / LOCK).read_text(encoding="utf-8", errors="replace")[:100]
    return MsekitError(
        f"another process trains into this folder: {holder if holder.isprintable() and holder else 'it gives no name'}",
        where=folder,
        fix="Wait for it or end it, or choose another --output.",
    )
