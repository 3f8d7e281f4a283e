"""What `msekit backbone list` and `info` tell; nothing is downloaded or built."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from msekit.backbones.catalogue import BACKBONES, BackboneEntry, canonical_name
from msekit.backbones.checkpoints.download import cached_folder
from msekit.backbones.checkpoints.kinds import gguf_at, refuse_other_kinds
from msekit.errors import MsekitError, nearest
from msekit.paths import cache_root


def describe_entry(entry: BackboneEntry) -> dict[str, Any]:
    """A catalogue entry's published figures, and its folder on this machine (None where it is not complete)."""
    if entry.hub:
        folder = cached_folder(entry.hub, entry.revision)
    else:
        assert entry.built is not None
        built = cache_root() / "backbones" / entry.built
        folder = built if built.is_dir() else None
    return {
        "name": entry.name,
        "hub": entry.hub,
        "revision": entry.revision,
        "licence": entry.licence,
        "gated": entry.gated,
        "parameters": entry.architecture.parameters,
        "checkpoint_bytes": entry.checkpoint_bytes,
        "folder": folder and str(folder),
    }


def describe(name: str) -> dict[str, Any]:
    """A catalogue entry with its architecture, or the figures counted in a checkpoint's files.

    Args:
        name: Catalogue name, folder or hub id.

    Raises:
        MsekitError: An unknown name, a hub model that is not on this machine, a damaged checkpoint.
    """
    name = canonical_name(name)
    if name in BACKBONES:
        entry = BACKBONES[name]
        return describe_entry(entry) | asdict(entry.architecture)
    folder: Path | None = Path(name)
    if (file := gguf_at(Path(name))) is not None:
        from msekit.backbones.checkpoints.gguf import copy_name

        folder = cache_root() / "backbones" / copy_name(file)
        if not folder.is_dir():
            raise MsekitError(
                "the GGUF file is not converted yet", where=file, fix=f"`msekit backbone fetch {name}` converts it."
            )
    elif Path(name).is_dir():
        refuse_other_kinds(Path(name))
    else:
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise MsekitError(f"unknown backbone '{name}'", fix=nearest(name, BACKBONES))
        folder = cached_folder(name)
    if folder is None:
        raise MsekitError(
            f"'{name}' is not on this machine", fix=f"`msekit backbone fetch {name}` downloads it from the hub."
        )
    return _counted(name, folder)


def _counted(name: str, folder: Path) -> dict[str, Any]:
    """Figures from a checkpoint's configuration and the headers of its weight files."""
    import math

    from msekit.backbones.checkpoints.known_formats import format_of
    from msekit.backbones.checkpoints.weight_files import read_config, tensor_shapes, weight_files

    raw = read_config(folder)
    published = format_of(raw)
    return {
        "name": name,
        "model_type": raw.get("model_type"),
        "loaded_as": published.stock_class if published else ", ".join(raw.get("architectures") or []),
        "parameters": sum(math.prod(shape) for shape in tensor_shapes(folder).values()),
        "checkpoint_bytes": sum(file.stat().st_size for file in weight_files(folder)),
        "folder": str(folder),
    }
