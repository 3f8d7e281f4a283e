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

from msekit.data.readers.rows import MOST_VALUES, RowError, shape_of_frames, wrong_shape
from msekit.errors import MsekitError

_PICKLE = "it holds Python objects (a pickle), which were not executed, instead of an array of numbers"
FEATURE_SUFFIXES = (".npy", ".npz", ".safetensors")


def read_features(path: Path, key: str, sample: str | None = None) -> np.ndarray:
    """The array of one modality.

    Args:
        path: The file. Of several arrays, the one named as the modality is taken.
        key: `audio` or `vision`.
        sample: Whose they are, for messages.

    Raises:
        MsekitError: The file is missing, damaged, absurdly large, or holds no plain numbers of that name.
    """
    where = f"{sample}, {path}" if sample else path
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
    reader = readers.get(path.suffix.lower())
    try:
        if not path.is_file():  # neither a folder nor a device
            raise MsekitError(f"no such {key} file")
        if reader is None:
            raise MsekitError(
                f"'{path.suffix}' is not a feature file", fix=f"Known endings: {', '.join(FEATURE_SUFFIXES)}"
            )
        frames = reader(path, key)
        return frames.reshape(shape_of_frames(frames.shape))
    except RowError as error:
        raise RowError(error.what, where=where, fix=error.fix, cause=error.cause, value=error.value) from None
    except MsekitError as error:
        raise MsekitError(error.what, where=where, fix=error.fix) from None
    except Exception as error:  # whatever a damaged file makes three libraries raise
        raise MsekitError(f"the {key} file cannot be read: {_reason(error)}", where=where) from error


def _reason(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    if "llow_pickle" in text or "bject arrays" in text or "Python objects" in text:
        return _PICKLE
    return text[:300]


def _check(shape: Iterable[int], kind: str, key: str) -> None:
    shape = tuple(shape)
    if kind == "O":
        raise MsekitError(f"'{key}' cannot be read: {_PICKLE}")
    if kind not in "fiub":
        raise MsekitError(f"'{key}' holds no numbers (dtype kind '{kind}')")
    if len(shape_of_frames(shape)) > 2 or math.prod(shape) > MOST_VALUES or min(shape, default=0) < 0:
        raise wrong_shape(shape, None, key)


def _npy(path: Path, key: str) -> np.ndarray:
    with path.open("rb") as file:
        if file.read(1) == b"\x80":  # the start of a pickle of protocol 2 or later
            raise ValueError("Python objects")
    frames = np.lib.format.open_memmap(path, mode="r")  # a header that states more than the file holds is refused
    _check(frames.shape, frames.dtype.kind, key)
    return np.asarray(frames)


def _npz(path: Path, key: str) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz archive")
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
        part = file.get_slice(name)
        _check(part.get_shape(), "f", key)
        if part.get_dtype() != "BF16":  # which numpy does not know
            frames: Any = file.get_tensor(name)
            return frames
    with safe_open(path, framework="pt") as file:
        wide: Any = file.get_tensor(name).float().numpy()
        return wide


def _choose(names: list[str], key: str) -> str:
    if key in names or len(names) == 1:
        return key if key in names else names[0]
    contents = ", ".join(sorted(names))[:200] or "nothing"
    raise MsekitError(f"the file holds {contents}, none of them '{key}'", fix=f"Name one array '{key}'")
