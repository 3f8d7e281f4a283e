"""Where a backbone's checkpoint lies: a catalogue name, a local folder or a hub id → a folder. No torch."""

from __future__ import annotations

from pathlib import Path

from msekit.backbones.catalogue import BACKBONES, SMOLLM2, TINY
from msekit.backbones.checkpoints.download import hub_folder
from msekit.backbones.checkpoints.smollm2 import smollm2_folder
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.errors import MsekitError, nearest

_BUILDERS = {SMOLLM2: smollm2_folder, TINY: tiny_llama_folder}


def checkpoint_folder(name_or_path: str) -> Path:
    """The local folder of a backbone's checkpoint, built or downloaded first where needed.

    Raises:
        MsekitError: Unknown name (the nearest are offered), or a download that failed.
    """
    if name_or_path in BACKBONES:
        entry = BACKBONES[name_or_path]
        if entry.built is not None:
            return _BUILDERS[entry.built]()
        assert entry.hub is not None
        return hub_folder(entry.hub, entry.revision)
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MsekitError("no config.json: not a checkpoint", where=folder)
        return folder
    if name_or_path.count("/") != 1 or name_or_path.startswith((".", "/", "~")):
        raise MsekitError(
            f"unknown backbone '{name_or_path}'",
            fix=nearest(name_or_path, BACKBONES) + " A folder or hub id works too.",
        )
    return hub_folder(name_or_path)
