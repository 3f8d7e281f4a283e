"""One sample's features in a file: .npy, .npz, .safetensors, .pt or .csv. Nothing is executed or unpacked to disk.

Of several arrays in a file the one is taken that is called as the modality; `file.npz#name` names another.

Sizes are checked in the header before anything of that size is made.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from msekit.data.bounds import refuse_packed
from msekit.data.readers.rows import MOST_VALUES, RowError, shape_of_frames, wrong_shape
from msekit.errors import MsekitError
from msekit.words import reason

_PICKLE = "it holds Python objects (a pickle), which were not executed, instead of an array of numbers"
ARRAY_SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth")
FEATURE_SUFFIXES = (*ARRAY_SUFFIXES, ".csv")
"""Beside arrays, tables of frames, which are features in folders of features alone."""
_PIECE = 1 << 20  # bytes
_LONGEST_SHOWN = 300  # characters of a path; a table may name one of thousands


def read_features(path: Path, key: str, sample: str | None = None, most: int = MOST_VALUES) -> np.ndarray:
    """The array of one modality.

    Args:
        path: The file, with `#name` behind it where one of several arrays is meant.
        key: `audio` or `vision`.
        sample: Whose they are, for messages.
        most: Values that an array may have.

    Raises:
        MsekitError: The file is missing, damaged, absurdly large, or holds no plain numbers of that name.
    """
    where = f"{sample}, {path!s:.{_LONGEST_SHOWN}}" if sample else str(path)[:_LONGEST_SHOWN]
    path, name = file_and_array(path)
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".pt": _pt, ".pth": _pt, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    try:
        if not path.is_file():  # neither a folder nor a device
            raise MsekitError(f"no such {key} file")
        if reader is None:
            raise MsekitError(
                f"'{path.suffix}' is not a feature file", fix=f"Known endings: {', '.join(FEATURE_SUFFIXES)}"
            )
        frames = reader(path, name or key, most)
        return frames.reshape(shape_of_frames(frames.shape))
    except RowError as error:
        raise RowError(error.what, where=where, fix=error.fix, cause=error.cause, value=error.value) from None
    except MsekitError as error:
        raise MsekitError(error.what, where=where, fix=error.fix) from None
    except Exception as error:  # whatever a damaged file makes three libraries raise
        raise MsekitError(f"the {key} file cannot be read: {_reason(error)}", where=where) from error


def file_and_array(path: Path) -> tuple[Path, str | None]:
    """`a.npz#hubert` → the file and the array's name; a file that is called so is taken as it is."""
    stem, mark, name = path.name.rpartition("#")
    return (path.with_name(stem), name) if mark and stem and not path.is_file() else (path, None)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return reason(error)
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    if "Weights only load failed" in text:
        return "it holds more than tensors, or is no file of torch.save; it was not executed"
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
            return _member(member, info, key, most)


def _member(member: IO[bytes], info: zipfile.ZipInfo, key: str, most: int) -> np.ndarray:
    if np.lib.format.read_magic(member) != (1, 0):  # the others are for headers longer than numbers need
        raise MsekitError(f"'{key}' is not an array of plain numbers")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    _check(shape, dtype.kind, key)
    _check_count(shape, key, most)
    stated, size = math.prod(shape) * dtype.itemsize, info.file_size
    if size != member.tell() + stated:  # before anything of that size is made
        raise MsekitError(f"'{key}' holds {'more' if size > member.tell() + stated else 'less'} than its shape says")
    refuse_packed(size, info.compress_size, f"'{key}'")
    data = np.empty(stated, np.uint8)  # filled piece by piece: zipfile's own read takes twice the room
    filled = 0
    while piece := member.read(_PIECE):
        if filled + len(piece) > stated:
            break
        data[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled != stated or piece:
        raise MsekitError(f"'{key}' does not hold what its shape says")
    return data.view(dtype).reshape(shape, order="F" if fortran else "C")


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


def _pt(path: Path, key: str, most: int) -> np.ndarray:
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise MsekitError("the file is compressed, as torch.save does not do it")
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        content = tensors[_choose(list(tensors), key)]
    if isinstance(content, (list, tuple)) and len(content) == 1:
        content = content[0]
    if not isinstance(content, torch.Tensor) or content.layout != torch.strided or content.is_quantized:
        kind = "tensor of another layout" if isinstance(content, torch.Tensor) else type(content).__name__
        raise MsekitError(f"the file holds a {kind}, not a tensor of numbers")
    if content.is_complex():
        raise MsekitError(f"'{key}' holds no numbers that can be read (complex)")
    _check(content.shape, "f", key)
    _check_count(content.shape, key, most)
    plain = content.detach()
    frames: np.ndarray = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return frames


def _csv(path: Path, key: str, most: int) -> np.ndarray:
    from msekit.data.readers.feature_tables import read_feature_table

    return read_feature_table(path, key, most)


def _choose(names: list[str], key: str) -> str:
    if key in names or len(names) == 1:
        return key if key in names else names[0]
    contents = ", ".join(sorted(names))[:200] or "nothing"
    other = f", or say which: FILE#{min(names)[:60]}" if names else ""
    raise MsekitError(f"the file holds {contents}, none of them '{key}'", fix=f"Name one array '{key}'{other}")
