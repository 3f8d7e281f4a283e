"""Checkpoints that msekit builds itself: once, under a lock, in a temporary folder that is renamed when complete."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from msekit.errors import MsekitError
from msekit.paths import cache_root, on_disk
from msekit.words import reason


def built_once(name: str, build: Callable[[Path], None]) -> Path:
    """The folder `<cache>/backbones/<name>`, built on first use.

    Args:
        name: Name of the folder; a new version of its content needs a new name.
        build: Fills an empty folder. Whatever it leaves when it fails or is killed is discarded.

    Raises:
        MsekitError: The cache folder cannot be written, or this is one of several processes that have joined.
    """
    target = cache_root() / "backbones" / name
    if _is_complete(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _is_complete(target):
                _refuse_among_several(name)
                partial = target.with_name(f"{name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                build(partial)
                for file in partial.rglob("*"):  # safetensors makes its files private, in a cache that may be shared
                    if file.is_file():
                        file.chmod(partial.stat().st_mode & 0o666)
                        on_disk(file)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(partial, target)
    except OSError as error:
        raise MsekitError(
            f"the cache folder cannot be written: {reason(error)}",
            where=target,
            fix="Set MSEKIT_CACHE to a writable folder.",
        ) from error
    return target


def _is_complete(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _refuse_among_several(name: str) -> None:
    """Where processes have joined, transformers writes a checkpoint in the first alone, and ZeRO-3 divides it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return
    if distributed.get_world_size() > 1:
        raise MsekitError(
            f"the checkpoint {name} cannot be built by one of several processes that have joined",
            fix="Load the backbone before they join, or once in a single process (msekit backbone fetch NAME).",
        )
