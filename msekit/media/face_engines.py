"""Face engines: pictures → the 478 landmarks of each face in them, in MediaPipe's numbering. One is chosen by name.

`mesh`: the face mesh of mediapipe 0.10.14, the last release whose wheel carries the model (Python 3.12 at most).
`landmarker`: the Face Landmarker of any later release (Python 3.10 to 3.13), whose model is a file of its own
(`face_model.py`): it is fetched only where a command asks for it.

Both follow a face from picture to picture, so a clip is one call.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from msekit.errors import MsekitError, nearest, needs_extra
from msekit.media.face_model import MODEL, MODEL_SHA256, face_model

MOST_FACES = 4
Faces = list[np.ndarray]
"""(478, 3) landmarks each: pixels, depth in the same unit."""


@dataclass(frozen=True)
class FaceEngine:
    """A way to landmarks."""

    version: Callable[[], str]
    """What the landmarks depend on; raises MsekitError where it cannot be used here."""
    faces: Callable[[Iterable[np.ndarray]], Iterator[tuple[np.ndarray, Faces]]]
    """Pictures (height, width, 3) uint8 in order, each with its faces."""


def face_engine(name: str) -> FaceEngine:
    """An engine by its name.

    Raises:
        MsekitError: There is none of that name.
    """
    if name not in ENGINES:
        raise MsekitError(f"there is no face engine '{name}'", fix=nearest(name, ENGINES))
    return ENGINES[name]


def default_engine() -> str:
    """`mesh` where a mediapipe that carries its models is installed, else `landmarker`."""
    try:
        _solutions()
    except MsekitError:
        return "landmarker"
    return "mesh"


_SILENCE = threading.Lock()
_silences: list[int] = []
"""The process' stderr, once for each silence there is now: the last one to end restores it."""


@contextmanager
def silent() -> Iterator[None]:
    """Discard what the process writes to stderr: mediapipe's C++ part logs every start there and has no switch.

    Silences of several threads may overlap.
    """
    with _SILENCE:
        if not _silences:
            sys.stderr.flush()
            stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        else:
            stderr = _silences[0]
        _silences.append(stderr)
    try:
        yield
    finally:
        with _SILENCE:
            stderr = _silences.pop()
            if not _silences:
                os.dup2(stderr, 2)
                os.close(stderr)


def _mesh_faces(pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Faces]]:
    with _solutions().face_mesh.FaceMesh(max_num_faces=MOST_FACES, refine_landmarks=True) as mesh:
        for picture in pictures:
            found = mesh.process(np.ascontiguousarray(picture)).multi_face_landmarks or []
            yield picture, [_marks(points.landmark, picture) for points in found]


def _landmarker_faces(pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Faces]]:
    mediapipe = _mediapipe()
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(face_model())),
        running_mode=vision.RunningMode.VIDEO,
        num_faces=MOST_FACES,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for number, picture in enumerate(pictures):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            found = landmarker.detect_for_video(image, number * 100).face_landmarks  # it wants times that grow
            yield picture, [_marks(points, picture) for points in found]


def _marks(points: Any, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale_3 = np.array([width, height, width])  # depth comes in units of the width
    return np.array([(mark.x, mark.y, mark.z) for mark in points]) * scale_3


def _mesh_version() -> str:
    _solutions()
    return f"mediapipe {_mediapipe().__version__}"


def _landmarker_version() -> str:
    _mediapipe()
    face_model()
    return f"{MODEL} {MODEL_SHA256[:12]}"


def _mediapipe() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype", category=UserWarning)  # its own protobuf
    try:
        import mediapipe
    except ImportError as error:
        if find_spec("mediapipe") is not None:  # its OpenCV is linked against a desktop's libraries
            raise MsekitError(
                f"face features need mediapipe, which cannot be imported: {error}",
                fix="Where a library of the system is absent: `apt-get install libgl1 libglib2.0-0`.",
            ) from error
        raise needs_extra("face features need mediapipe", "media", "extract without vision") from error
    return mediapipe


def _solutions() -> Any:
    _mediapipe()
    try:
        from mediapipe import solutions  # later releases have no model files and no such module
    except ImportError as error:
        raise MsekitError(
            "the face engine mesh needs a mediapipe release that carries its models (0.10.14; Python 3.12 at most)",
            fix="pip install mediapipe==0.10.14, or --vision face-landmarker.",
        ) from error
    return solutions


ENGINES = {
    "mesh": FaceEngine(_mesh_version, _mesh_faces),
    "landmarker": FaceEngine(_landmarker_version, _landmarker_faces),
}
