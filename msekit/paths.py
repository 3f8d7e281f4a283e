"""Where things lie: the user's cache and the files that ship with the package."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$MSEKIT_CACHE`, or `~/.cache/msekit`: converted backbones and Arrow caches."""
    return Path(os.environ.get("MSEKIT_CACHE") or Path.home() / ".cache" / "msekit").expanduser()


def shipped(kind: str) -> Path:
    """A folder that ships with msekit (`configs`, `launch`), from an installed wheel or a source tree."""
    installed = Path(__file__).parent / "_shipped" / kind
    return installed if installed.is_dir() else Path(__file__).parent.parent / kind
