"""An uploaded file → features. Its name decides nothing but, through its ending, how it is read."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.datastructures import UploadFile

from msekit.errors import MsekitError
from msekit.inference.description import Description
from msekit.inference.features import read_feature_file

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
        MsekitError: Another field or ending, or a file that cannot be used.
    """
    if field not in FIELDS:
        raise MsekitError(f"no field '{field}' for files", fix=f"Known: {', '.join(FIELDS)}")
    suffix = PurePosixPath((upload.filename or "").replace("\\", "/")).suffix.lower()
    if suffix not in FEATURES or field == "video":
        raise MsekitError(f"a file ending in '{suffix[:20]}' cannot be read", fix=f"Give {', '.join(FEATURES)}.")
    path = folder / f"{field}{suffix}"
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    try:
        return {field: read_feature_file(path, field).copy()}
    except MsekitError as error:
        raise MsekitError(f"{field}: {error.what}", fix=error.fix) from error
