"""The weight files of a checkpoint: safetensors or PyTorch's `.bin`, in one file or in shards named by an index."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msekit.errors import MsekitError
from msekit.words import reason

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "Fetch the checkpoint again."


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json.

    Raises:
        MsekitError: It is absent, unreadable or not a mapping.
    """
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MsekitError(f"config.json cannot be read: {reason(error)}", where=folder) from error
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
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise MsekitError(f"the index of the weight files is damaged: {reason(error)}", where=index) from error
            absent = [name for name in names if not (folder / name).is_file()]
            if absent:
                raise MsekitError(
                    f"{len(absent)} of the {len(names)} weight files are missing: {', '.join(absent)}",
                    where=folder,
                    fix=_AGAIN,
                )
            return [folder / name for name in names]
    raise MsekitError("no weights (model*.safetensors or pytorch_model*.bin)", where=folder)


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
