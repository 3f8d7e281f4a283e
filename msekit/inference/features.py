"""What a user hands over as audio or vision → frames that the plug-in can read: arrays, nested lists, feature files.

Everything is refused clearly that training could not have seen: another width, no frames, no finite number. Single
non-finite values are treated as in training: they become the mean of the training data (0 without standardisation).
No file is executed: .npy and .npz are read without pickles. L frames, D features.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msekit.errors import MsekitError
from msekit.media.decode import SUFFIXES as CLIPS
from msekit.media.extract import extractor_of, features_of
from msekit.media.kind import Extractor, check_kind

LARGEST_BYTES = 1 << 30
"""Of one feature array; the longest published one takes 2 MB."""
MOST_FRAMES = 100_000
"""Of one sequence: a quarter of an hour at 100 frames a second, where an utterance is expected."""


@dataclass(frozen=True)
class Frames:
    """One modality of one sample."""

    values: np.ndarray
    """(L, D) in the precision of the training cache, NaN where a value was not finite."""
    replaced: int
    """Values that were not finite."""


def frames_of(
    value: Any, modality: str, width: int, dtype: str, where: object = None, extractor: Extractor | None = None
) -> Frames:
    """Read one modality of one sample.

    Args:
        value: (L, D) array, tensor or nested lists; (D,) for a single frame; or the path of a feature file or a clip.
        modality: `audio` or `vision`.
        width: D that the plug-in was trained on.
        dtype: Precision of the training cache.
        where: What an error message names.
        extractor: What made the features in training, where that is on record: it reads clips.

    Raises:
        MsekitError: Anything that is not finite enough, wide enough, long enough or numeric.
    """
    if isinstance(value, (str, os.PathLike)):
        where = value
        array = _read(Path(value), modality, extractor)
    else:
        array = _as_array(value, modality, where)
    if array.dtype.kind not in "fiub":
        raise MsekitError(f"'{modality}' holds {array.dtype}, not numbers", where=where)
    if array.shape == (width,):
        array = array[None]
    if array.ndim != 2:
        raise MsekitError(f"'{modality}' has shape {array.shape}, not (frames, features)", where=where)
    if not len(array):
        raise MsekitError(f"'{modality}' has no frames", where=where, fix="Leave it out to predict without it.")
    if array.shape[1] != width:
        raise MsekitError(
            f"'{modality}' has {array.shape[1]} features per frame, the plug-in was trained on {width}",
            where=where,
            fix="Give features of the same extractor as in training.",
        )
    if len(array) > MOST_FRAMES:
        raise MsekitError(
            f"'{modality}' has {len(array)} frames, more than {MOST_FRAMES}", where=where, fix="Cut it into utterances."
        )
    return _stored(array, modality, dtype, where)


def _read(path: Path, modality: str, extractor: Extractor | None) -> np.ndarray:
    """A feature file of the right kind, or a clip through the extractor that training's features came from."""
    if path.suffix.lower() not in CLIPS:
        check_kind(modality, extractor, extractor_of(path), path)
        return read_feature_file(path, modality)
    if extractor is None:
        raise MsekitError(
            f"the plug-in's {modality} features were not made by `msekit extract`, so a clip cannot become them",
            where=path,
            fix="Give features of the kind it was trained on.",
        )
    features: np.ndarray = features_of(path, modality, extractor)
    return features


def _stored(array_LD: np.ndarray, modality: str, dtype: str, where: object) -> Frames:
    """The array as the training cache would have held it."""
    finite_LD = np.isfinite(array_LD)
    if not finite_LD.any():
        raise MsekitError(f"'{modality}' holds no finite number", where=where)
    limit = float(np.finfo(dtype).max)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.can_cast(array_LD.dtype, dtype):
            array_LD = array_LD.astype(np.float64).clip(-limit, limit)
        stored_LD = np.where(finite_LD, array_LD, np.nan).astype(dtype)
    return Frames(stored_LD, int(finite_LD.size - finite_LD.sum()))


def _as_array(value: Any, modality: str, where: object) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise MsekitError(f"'{modality}' is not an array: {error}", where=where) from error
    if array.nbytes > LARGEST_BYTES:
        raise MsekitError(f"'{modality}' takes {array.nbytes >> 20} MB, too much for an utterance", where=where)
    return array


def read_feature_file(path: Path, modality: str) -> np.ndarray:
    """The array of a .npy, .npz or .safetensors file; a file with several holds it under the modality's name.

    Raises:
        MsekitError: No such file, another kind of file, Python objects in it, or an absurd size.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    try:
        if not path.is_file():  # neither a folder nor a device
            raise MsekitError(f"no such {modality} file", where=path)
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise MsekitError(
                f"'{path.suffix}' is not a feature file", where=path, fix="Give .npy, .npz or .safetensors."
            )
        return _as_array(reader(path, modality), modality, path)
    except MsekitError:
        raise
    except Exception as error:  # the header of a damaged file can raise anything
        raise MsekitError(f"the {modality} file cannot be read: {_reason(error)}", where=path) from error


def _reason(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    if "llow_pickle" in text or "bject arrays" in text or "Python objects" in text:
        return "it holds Python objects (a pickle), which were not executed, instead of an array of numbers"
    return text


def _read_npy(path: Path, _modality: str) -> np.ndarray:
    with path.open("rb") as file:
        if file.read(1) == b"\x80":  # the start of a pickle of protocol 2 or later
            raise ValueError("Python objects")
    return np.lib.format.open_memmap(path, mode="r")  # maps: a header that states more than the file holds is refused


def _read_npz(path: Path, modality: str) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz archive")
    with np.load(path, allow_pickle=False) as archive:
        name = _chosen(list(archive.files), modality)
        if archive.zip.getinfo(f"{name}.npy").file_size > LARGEST_BYTES:
            raise ValueError(f"'{name}' unpacks to more than {LARGEST_BYTES >> 20} MB")
        return archive[name]


def _read_safetensors(path: Path, modality: str) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            name = _chosen(list(file.keys()), modality)
            return file.get_tensor(name).float().numpy()
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _chosen(names: list[str], modality: str) -> str:
    """The one array of a file, or the one that carries the modality's name."""
    if modality in names:
        return modality
    if len(names) == 1:
        return names[0]
    raise ValueError(f"it holds {', '.join(sorted(names)) or 'nothing'}, none of them '{modality}'")
