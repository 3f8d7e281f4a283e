"""The weight files of a checkpoint: safetensors or PyTorch's `.bin`, in one file or in shards named by an index."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit.errors import MsekitError
from msekit.json_file import read_json

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "Fetch the checkpoint again."


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json.

    Raises:
        MsekitError: It is absent, unreadable or not a mapping.
    """
    raw = read_json(folder / "config.json", "checkpoint's configuration", of_another_program=True)
    if not isinstance(raw, dict):
        raise MsekitError("config.json is not a mapping", where=folder)
    return raw


def weight_files(folder: Path) -> list[Path]:
    """A checkpoint's weight files, all of which are there; safetensors where a checkpoint has both kinds.

    Raises:
        MsekitError: No weights, a damaged index, or files that the index names and the folder lacks.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return [folder / single]
        if index.is_file():
            names = _indexed(index)
            absent = [name for name in names if not (folder / name).is_file()]
            if absent:
                raise MsekitError(
                    f"{len(absent)} of the {len(names)} weight files are missing: {', '.join(absent)}",
                    where=folder,
                    fix=_AGAIN,
                )
            return [folder / name for name in names]
    raise MsekitError("no weights (model*.safetensors or pytorch_model*.bin)", where=folder)


def _indexed(index: Path) -> list[str]:
    """The files that an index names: in its own folder, as every writer of checkpoints has them."""
    raw = read_json(index, "index of the weight files", of_another_program=True)
    files = raw.get("weight_map") if isinstance(raw, dict) else None
    names = set(files.values()) if isinstance(files, dict) and all(map(_is_name, files.values())) else set()
    if not names:
        raise MsekitError("the index of the weight files is damaged: it names no files beside it", where=index)
    return sorted(names)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


def tensors_of(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a weight file, mapped into memory and read when used; nothing in the file is run.

    Raises:
        MsekitError: The file is truncated or not what its name says.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - a safe_open handle cannot be iterated
                    yield name, handle.get_tensor(name)
        else:
            mapped = zipfile.is_zipfile(file)  # files of before torch 1.6 cannot be mapped
            for name, tensor in torch.load(file, map_location="cpu", weights_only=True, mmap=mapped).items():
                if not isinstance(tensor, torch.Tensor):
                    raise ValueError(f"{name} is no tensor")
                yield name, tensor
    except pickle.UnpicklingError as error:
        raise MsekitError("the weight file holds other things than tensors, or is damaged", where=file) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, AttributeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__).partition(". ")[0]
        raise MsekitError(f"the weight file is truncated or damaged: {first}", where=file, fix=_AGAIN) from error


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a checkpoint, from the files' headers.

    Raises:
        MsekitError: A weight file is missing, truncated or damaged.
    """
    return {name: tuple(tensor.shape) for file in weight_files(folder) for name, tensor in tensors_of(file)}
