"""One sample's features in a file: .npy, .npz or .safetensors. Nothing is unpickled, nothing is unpacked to disk.

Sizes are checked in the header before anything of that size is made.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from msekit.data.rows import MOST_VALUES
from msekit.errors import MsekitError

SUFFIXES = (".npy", ".npz", ".safetensors")


def read_features(path: Path, key: str, where: str) -> np.ndarray:
    """The array of one modality.

    Args:
        path: The file. Of several arrays, the one named as the modality is taken.
        key: `audio` or `vision`.
        where: The sample, for messages.

    Raises:
        MsekitError: The file is missing, damaged, absurdly large, or holds no plain numbers of that name.
    """
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise MsekitError(f"'{key}' is in '{path.name}'", where=where, fix=f"Known endings: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise MsekitError(f"no such feature file: {path}", where=where)
    try:
        return readers[path.suffix](path, key)
    except MsekitError as error:
        raise MsekitError(error.what, where=f"{where}, {path}", fix=error.fix) from None
    except Exception as error:  # whatever a damaged file makes three libraries raise
        raise MsekitError(f"the feature file cannot be read: {str(error)[:300]}", where=f"{where}, {path}") from error


def _check(shape: Iterable[int], kind: str, key: str) -> None:
    shape = tuple(shape)
    if kind not in "fiub":
        raise MsekitError(f"'{key}' holds no numbers (dtype kind '{kind}')")
    if len(shape) > 2 or math.prod(shape) > MOST_VALUES or min(shape, default=0) < 0:
        raise MsekitError(f"'{key}' has shape {shape}, not (frames, features) of a sample")


def _npy(path: Path, key: str) -> np.ndarray:
    frames = np.load(path, mmap_mode="r", allow_pickle=False)
    _check(frames.shape, frames.dtype.kind, key)
    return np.asarray(frames)


def _npz(path: Path, key: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        with archive.open(f"{_choose(names, key)}.npy") as member:
            return _member(member, key)


def _member(member: IO[bytes], key: str) -> np.ndarray:
    if np.lib.format.read_magic(member) != (1, 0):  # the others are for headers longer than numbers need
        raise MsekitError(f"'{key}' is not an array of plain numbers")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    _check(shape, dtype.kind, key)
    data = member.read(math.prod(shape) * dtype.itemsize)
    if member.read(1):
        raise MsekitError(f"'{key}' holds more than its shape says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _safetensors(path: Path, key: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        name = _choose(list(file.keys()), key)
        _check(file.get_slice(name).get_shape(), "f", key)
        frames: Any = file.get_tensor(name)
        return frames


def _choose(names: list[str], key: str) -> str:
    if key in names or len(names) == 1:
        return key if key in names else names[0]
    raise MsekitError(f"the file holds {', '.join(names)[:200] or 'nothing'}", fix=f"Name one array '{key}'")
