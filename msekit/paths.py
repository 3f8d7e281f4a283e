"""Two folders, the user's cache and what ships with the package; and `on_disk`, for what must outlast a power cut."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from pathlib import Path

from msekit.errors import MsekitError


def cache_root() -> Path:
    """The folder for converted backbones, downloads and Arrow caches.

    `$MSEKIT_CACHE`, or `msekit` in `$HF_HOME` (beside the hub's own cache), in `$XDG_CACHE_HOME` (which counts where it
    is absolute) or in `~/.cache`.
    """
    if own := os.environ.get("MSEKIT_CACHE"):
        return Path(own).expanduser()
    if hub := os.environ.get("HF_HOME"):
        return Path(hub).expanduser() / "msekit"
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "msekit"


def expanded(path: Path) -> Path:
    """A path with `~` and `~someone` written out.

    Raises:
        MsekitError: There is nobody of that name.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise MsekitError("there is no home folder of that name", where=path, fix="Write the whole path") from None


def shipped(kind: str) -> Path:
    """A folder that ships with msekit (`configs`, `launch`), from an installed wheel or a source tree."""
    installed = Path(__file__).parent / "_shipped" / kind
    return installed if installed.is_dir() else Path(__file__).parent.parent / kind


def on_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, would outlast a power cut."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # which opens no folder
        return
    file = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows brings only what may be written to the disk
    try:
        with suppress(OSError) if folder else nullcontext():  # some file systems cannot do it for folders
            os.fsync(file)
    finally:
        os.close(file)
