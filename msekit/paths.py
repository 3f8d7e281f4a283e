"""Two folders: the user's cache, and what ships with the package."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder for converted backbones, downloads and Arrow caches: `$MSEKIT_CACHE`, or `~/.cache/msekit`."""
    return Path(os.environ.get("MSEKIT_CACHE") or Path.home() / ".cache" / "msekit").expanduser()


def shipped(kind: str) -> Path:
    """A folder that ships with msekit (`configs`, `launch`), from an installed wheel or a source tree."""
    installed = Path(__file__).parent / "_shipped" / kind
    return installed if installed.is_dir() else Path(__file__).parent.parent / kind
