"""Where a backbone's checkpoint lies: a catalogue name, a local folder or a hub id → a folder. No torch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from msekit.backbones.catalogue import BACKBONES, SMOLLM2, TINY
from msekit.errors import MsekitError, nearest

_CHECKPOINTS = "msekit.backbones.checkpoints"
_BUILDERS = {SMOLLM2: ("smollm2", "smollm2_folder"), TINY: ("tiny", "tiny_llama_folder")}
"""Backbone → module and function that build its checkpoint; imported when it is asked for."""


def checkpoint_folder(name_or_path: str) -> Path:
    """The local folder of a backbone's checkpoint, built, converted or downloaded first where needed.

    Raises:
        MsekitError: Unknown name (the nearest are offered), something else than an LLM's checkpoint, or a download
            that failed.
    """
    if name_or_path in BACKBONES:
        entry = BACKBONES[name_or_path]
        if entry.built is not None:
            module, function = _BUILDERS[entry.built]
            return getattr(import_module(f"{_CHECKPOINTS}.{module}"), function)()
        assert entry.hub is not None
        return _downloaded(entry.hub, entry.revision)
    from msekit.backbones.checkpoints.kinds import gguf_at, refuse_other_kinds

    folder = Path(name_or_path)
    if (file := gguf_at(folder)) is not None:
        from msekit.backbones.checkpoints.gguf import gguf_folder

        return gguf_folder(file)
    if folder.is_dir():
        refuse_other_kinds(folder)
        return folder
    if folder.is_file():
        raise MsekitError("a file, not a checkpoint's folder", where=folder, fix=f"Give the folder: {folder.parent}")
    if name_or_path.count("/") != 1 or name_or_path.startswith((".", "/", "~")):
        raise MsekitError(
            f"unknown backbone '{name_or_path}'",
            fix=nearest(name_or_path, BACKBONES, "A folder or hub id works too."),
        )
    return _downloaded(name_or_path)


def _downloaded(hub: str, revision: str | None = None) -> Path:
    from msekit.backbones.checkpoints.download import hub_folder  # of no use to a checkpoint that is here

    return hub_folder(hub, revision)
