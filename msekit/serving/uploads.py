"""An uploaded file → features. Of its name only the ending counts: it decides how the file is read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile

from msekit.data.catalogue import MODALITIES
from msekit.data.readers.feature_files import FEATURE_SUFFIXES
from msekit.errors import MsekitError
from msekit.inference.given_features import frames_of
from msekit.media.decode import CLIP_SUFFIXES
from msekit.runs.description import Description

FIELDS = (*MODALITIES, "video")
_PREFIX = "msekit-upload-"


@contextmanager
def folder_for_uploads() -> Iterator[Path]:
    """A folder for a request's files, which goes with it; its name says whose process it belongs to."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def remove_leftovers() -> None:
    """Remove this user's uploads that killed servers left: they hold faces and voices."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def refuse_other_fields(fields: Iterable[str]) -> None:
    """Refuse files in a field that is of words.

    Raises:
        MsekitError: The first such field.
    """
    for field in fields:
        if field not in FIELDS:
            raise MsekitError(f"no field '{field[:20]}' for files", fix=f"Known: {', '.join(FIELDS)}")


def features_of_upload(field: str, upload: UploadFile, description: Description, folder: Path) -> dict[str, Any]:
    """Read one uploaded file.

    Args:
        field: `audio` or `vision` (features or a clip), or `video` (a clip for both).
        upload: The file.
        description: The description of the plug-in that will read it.
        folder: A folder for the file while it is read.

    Returns:
        Modality → (L, D) array.

    Raises:
        MsekitError: The ending is unknown, the name holds a path, or the file cannot be used.
    """
    endings = (*FEATURE_SUFFIXES, *CLIP_SUFFIXES)
    name = upload.filename or ""
    if set(name) & set("/\\\0"):  # nothing is opened under this name, but a client that sends it means no good
        raise MsekitError(f"{field}: a file's name holds no path: {name[:60]!r}")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in endings or (field == "video" and suffix in FEATURE_SUFFIXES):
        raise MsekitError(f"a file ending in '{suffix[:20]}' cannot be read", fix=f"Known: {', '.join(endings)}.")
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
