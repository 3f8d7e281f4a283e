"""What a user hands over as audio or vision → frames that the plug-in can read: arrays, nested lists, feature files.

What training could not have seen is refused: another width, no frames, no finite number. Single non-finite values are
treated as in training: they become the mean of the training data (0 without standardisation).
`msekit.data.readers.feature_files` reads feature files, as for training. L frames, D features.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.extractor import Extractor, check_extractor
from msekit.errors import MsekitError

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
        array = _read(Path(value), modality, width, extractor)
    else:
        array = _as_array(value, modality, where)
    if array.dtype.kind not in "fiub":
        raise MsekitError(f"'{modality}' holds {array.dtype}, not numbers", where=where)
    if array.shape == (width,):
        array = array[None]
    elif array.ndim > 2:
        from msekit.data.readers.rows import shape_of_frames

        array = array.reshape(shape_of_frames(array.shape))
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


def _read(path: Path, modality: str, width: int, extractor: Extractor | None) -> np.ndarray:
    """A feature file of the right kind, or a clip through the extractor that training's features came from."""
    from msekit.data.readers.feature_files import file_and_array, read_features  # of use to paths alone, not to arrays
    from msekit.data.readers.rows import MOST_VALUES
    from msekit.media.decode import CLIP_SUFFIXES
    from msekit.media.extract import extractor_of, features_of

    if path.suffix.lower() not in CLIP_SUFFIXES:
        check_extractor(modality, extractor, extractor_of(file_and_array(path)[0]), path)
        # twice: room for a sequence that is somewhat too long, of which an error of its own tells
        return read_features(path, modality, most=min(2 * max(width, 1) * MOST_FRAMES, MOST_VALUES))
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
