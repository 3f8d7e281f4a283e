"""A run's files of tensors: safetensors, written whole or not at all. Never a pickle.

The header holds a checksum over every tensor's name, type, shape and bytes and over the rest of the header, so that a
bit that a disk or a transfer flipped is not taken for training's result. Files of the first runs hold none.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from msekit.errors import MsekitError
from msekit.runs.files import replacing
from msekit.words import reason

_CHECKSUM = "sha256"


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(copies, partial, {**(header or {}), _CHECKSUM: _checksum(copies, header or {})})
        os.chmod(partial, 0o666 & ~_umask())  # safetensors makes the file private


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file and what its header says.

    Raises:
        MsekitError: The file is missing or damaged, or is not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise MsekitError("no such file", where=path) from error
    except (SafetensorError, OSError) as error:
        raise MsekitError(f"the file is damaged: {reason(error)}", where=path) from error
    written = header.pop(_CHECKSUM, None)
    if written not in (None, _checksum(tensors, header)):
        raise MsekitError(
            "the file is damaged: its tensors are not those that were written, by their checksum",
            where=path,
            fix="Take it from a copy, or train again.",
        )
    return tensors, header


def _checksum(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """sha256, in hex; the order of names does not count."""
    digest = hashlib.sha256(repr(sorted(header.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
