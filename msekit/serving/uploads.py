"""An uploaded file → features. Its name decides nothing but, through its ending, how it is read."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile

from msekit.errors import MsekitError
from msekit.inference.given_features import frames_of
from msekit.media.decode import CLIP_SUFFIXES
from msekit.runs.description import Description

FEATURES = (".npy", ".npz", ".safetensors")
FIELDS = ("audio", "vision", "video")


def features_of_upload(field: str, upload: UploadFile, description: Description, folder: Path) -> dict[str, Any]:
    """Read one uploaded file.

    Args:
        field: `audio` or `vision` (features), or a clip.
        upload: The file.
        description: Of the plug-in that will read it.
        folder: Where it may lie while it is read.

    Returns:
        Modality → (L, D) array.

    Raises:
        MsekitError: Another field or ending, a name with a path in it, or a file that cannot be used.
    """
    if field not in FIELDS:
        raise MsekitError(f"no field '{field}' for files", fix=f"Known: {', '.join(FIELDS)}")
    known = (*FEATURES, *CLIP_SUFFIXES)
    name = upload.filename or ""
    if set(name) & set("/\\\0"):  # nothing is opened under it; whoever sends such a name means no good
        raise MsekitError(f"{field}: a file's name holds no path: {name[:60]!r}")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in known or (field == "video" and suffix in FEATURES):
        raise MsekitError(f"a file ending in '{suffix[:20]}' cannot be read", fix=f"Known: {', '.join(known)}.")
    path = folder / f"{field}{suffix}"
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    wanted = [name for name, width in description.widths.items() if width] if field == "video" else [field]
    try:
        return {modality: _frames(path, modality, description) for modality in wanted}
    except MsekitError as error:
        raise MsekitError(f"{field}: {error.what}", fix=error.fix) from error


def _frames(path: Path, modality: Any, description: Description) -> np.ndarray:
    width, extractor = description.widths[modality], description.dataset.extractors.get(modality)
    return frames_of(path, modality, width, description.feature_dtype, path.name, extractor).values.copy()
