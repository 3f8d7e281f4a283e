"""Pictures → face features, one vector per picture, by the face mesh that mediapipe's wheel carries.

Per picture: 68 landmarks (the usual scheme: jaw, brows, nose, eyes, lips) with the face upright, centred between the
eyes and in units of the distance of the outer eye corners; the head's roll, yaw and pitch in radians; and distances
that follow action units, in the same unit. A picture without a face is a row of NaN: training puts the mean there.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError, needs_extra

EXTRACTOR = "face"
"""Name of the extractor."""
FaceChoice = Literal["largest", "left", "right"]
"""Which face is taken where a picture shows several."""
PICTURES_PER_SECOND = 10.0
_MOST_FACES = 4
_LEFT_EYE, _RIGHT_EYE = (33, 133), (263, 362)  # outer and inner corner, in the mesh's numbering
_JAW = (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)
_BROWS = (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)
_NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
LANDMARKS = (*_JAW, *_BROWS, *_NOSE, *_EYES, *_LIPS)
DISTANCES = {
    "left inner brow": (107, 133),
    "right inner brow": (336, 362),
    "left outer brow": (70, 33),
    "right outer brow": (300, 263),
    "between brows": (107, 336),
    "left eye opening": (159, 145),
    "right eye opening": (386, 374),
    "left cheek": (145, 205),
    "right cheek": (374, 425),
    "nose to upper lip": (2, 0),
    "mouth width": (61, 291),
    "mouth opening": (13, 14),
    "lip height": (0, 17),
    "left lip corner to eye": (61, 33),
    "right lip corner to eye": (291, 263),
    "lower lip to chin": (17, 152),
    "nose to chin": (2, 152),
}
"""Pairs of landmarks whose distance moves with an action unit."""
WIDTH = 2 * len(LANDMARKS) + 3 + len(DISTANCES)


def vision_extractor(face: FaceChoice) -> Extractor:
    """The record of the face extractor: its name, release and settings.

    Raises:
        MsekitError: mediapipe is missing, or is a release without model files.
    """
    settings = {"face": face, "pictures_per_second": PICTURES_PER_SECOND}
    return Extractor(name=EXTRACTOR, version=f"mediapipe {_mediapipe().__version__}", settings=settings)


def vision_features(pictures: Iterable[np.ndarray], face: FaceChoice) -> np.ndarray:
    """Pictures (height, width, 3) in order → (L, 156) float32, NaN in rows without a face.

    Raises:
        MsekitError: No picture shows a face.
    """
    rows = []
    with _silent(), _mediapipe().solutions.face_mesh.FaceMesh(max_num_faces=_MOST_FACES, refine_landmarks=True) as mesh:
        for picture in pictures:
            meshes = mesh.process(np.ascontiguousarray(picture)).multi_face_landmarks or []
            height, width = picture.shape[:2]
            scale_3 = np.array([width, height, width])  # the mesh gives depth in units of the width
            faces = [np.array([(mark.x, mark.y, mark.z) for mark in points.landmark]) * scale_3 for points in meshes]
            rows.append(face_vector(choose_face(faces, face)) if faces else np.full(WIDTH, np.nan, np.float32))
    features_LD = np.stack(rows)
    if np.isnan(features_LD).all():
        raise MsekitError("no picture shows a face")
    return features_LD


def choose_face(faces: list[np.ndarray], face: FaceChoice) -> np.ndarray:
    """Choose a face (478, 3) of a picture: the largest, the leftmost or the rightmost."""
    if face == "largest":
        return max(faces, key=lambda marks: float(np.ptp(marks[:, 0]) * np.ptp(marks[:, 1])))
    pick = min if face == "left" else max
    return pick(faces, key=lambda marks: float(marks[:, 0].mean()))


def face_vector(marks_M3: np.ndarray) -> np.ndarray:
    """Landmarks in pixels, (478, 3) → features (156,) float32: free of the face's place, size and tilt."""
    left_3, right_3 = marks_M3[_LEFT_EYE[0]], marks_M3[_RIGHT_EYE[0]]
    across_3 = right_3 - left_3
    roll = np.arctan2(across_3[1], across_3[0])
    yaw = np.arctan2(across_3[2], across_3[0])
    down_3 = marks_M3[152] - marks_M3[10]  # forehead to chin
    pitch = np.arctan2(down_3[2], down_3[1])
    unit = max(float(np.linalg.norm(across_3[:2])), 1e-6)
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    centre_2 = marks_M3[[*_LEFT_EYE, *_RIGHT_EYE], :2].mean(axis=0)
    upright_M2 = (marks_M3[:, :2] - centre_2) @ turn.T / unit
    distances = [np.linalg.norm(upright_M2[start] - upright_M2[end]) for start, end in DISTANCES.values()]
    return np.array([*upright_M2[list(LANDMARKS)].ravel(), roll, yaw, pitch, *distances], dtype=np.float32)


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what the process writes to stderr: mediapipe's C++ part logs every start there and has no switch."""
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _mediapipe() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype", category=UserWarning)  # its own protobuf
    try:
        import mediapipe
        from mediapipe import solutions  # noqa: F401 - later releases have no model files and no such module
    except ImportError as error:
        what = "face features need a mediapipe release that carries its models (0.10.14; Python 3.12 at most)"
        raise needs_extra(what, "media", "give --vision none") from error
    return mediapipe
