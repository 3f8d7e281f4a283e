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


def read_features(path: Path, key: str, sample: str | None = None, most: int = MOST_VALUES) -> np.ndarray:
    """The array of one modality.

    Args:
        path: The file. Of several arrays, the one named as the modality is taken.
        key: `audio` or `vision`.
        sample: Whose they are, for messages.
        most: Values that an array may have.

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
        frames = reader(path, key, most)
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


def _check_count(shape: Iterable[int], key: str, most: int) -> None:
    """Refuse more values than are of use, before they are read."""
    if math.prod(shape) > most:
        raise MsekitError(f"'{key}' has shape {tuple(shape)}: more than {most:,} values")


def _npy(path: Path, key: str, most: int) -> np.ndarray:
    with path.open("rb") as file:
        if file.read(1) == b"\x80":  # the start of a pickle of protocol 2 or later
            raise ValueError("Python objects")
    frames = np.lib.format.open_memmap(path, mode="r")  # a header that states more than the file holds is refused
    _check(frames.shape, frames.dtype.kind, key)
    _check_count(frames.shape, key, most)
    return np.asarray(frames)


def _npz(path: Path, key: str, most: int) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz archive")
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise MsekitError("the file holds two arrays of one name")
        info = archive.getinfo(f"{_choose(names, key)}.npy")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # others are unpacked without a bound, 3 GB out of 4 kB; numpy writes none of them
            raise MsekitError(f"'{key}' is compressed otherwise than numpy does it", fix="Use numpy.savez_compressed.")
        with archive.open(info) as member:
            return _member(member, info.file_size, key, most)


def _member(member: IO[bytes], size: int, key: str, most: int) -> np.ndarray:
    if np.lib.format.read_magic(member) != (1, 0):  # the others are for headers longer than numbers need
        raise MsekitError(f"'{key}' is not an array of plain numbers")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    _check(shape, dtype.kind, key)
    _check_count(shape, key, most)
    stated = math.prod(shape) * dtype.itemsize
    if size != member.tell() + stated:  # before anything of that size is made
        raise MsekitError(f"'{key}' holds {'more' if size > member.tell() + stated else 'less'} than its shape says")
    data = member.read(stated)
    if len(data) != stated or member.read(1):
        raise MsekitError(f"'{key}' does not hold what its shape says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _safetensors(path: Path, key: str, most: int) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        name = _choose(list(file.keys()), key)
        part = file.get_slice(name)
        _check(part.get_shape(), "f", key)
        _check_count(part.get_shape(), key, most)
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
