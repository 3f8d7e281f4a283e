"""Pictures → face features, one vector per picture, from the landmarks of a face engine (`face_engines.py`).

Per picture: 68 landmarks (the usual scheme: jaw, brows, nose, eyes, lips) with the face upright, centred between the
eyes and in units of the distance of the outer eye corners; the head's roll, yaw and pitch in radians; and distances
that follow action units, in the same unit. A picture without a face is a row of NaN: training puts the mean there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.media.face_engines import default_engine, face_engine, silent

EXTRACTOR = "face"
"""Name of the extractor."""
FaceChoice = Literal["largest", "left", "right"]
"""Which face is taken where a picture shows several."""
PICTURES_PER_SECOND = 10.0
FIRST_ENGINE = "mesh"
"""The engine of records that name none."""
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


def vision_extractor(face: FaceChoice, engine: str | None = None) -> Extractor:
    """The record of the face extractor: its name, release and settings.

    Args:
        face: Which face is taken.
        engine: One of `face_engines`; None for the one that is installed.

    Raises:
        MsekitError: The engine cannot be used here.
    """
    engine = engine or default_engine()
    settings: dict[str, Any] = {"face": face, "pictures_per_second": PICTURES_PER_SECOND}
    if engine != FIRST_ENGINE:
        settings["engine"] = engine
    return Extractor(name=EXTRACTOR, version=face_engine(engine).version(), settings=settings)


def vision_features(pictures: Iterable[np.ndarray], face: FaceChoice, engine: str | None = None) -> np.ndarray:
    """Pictures (height, width, 3) in order → (L, 156) float32, NaN in rows without a face.

    Raises:
        MsekitError: No picture shows a face, or the engine cannot be used here.
    """
    rows = []
    with silent():
        for _, faces in face_engine(engine or default_engine()).faces(pictures):
            rows.append(face_vector(choose_face(faces, face)) if faces else np.full(WIDTH, np.nan, np.float32))
    features_LD = np.stack(rows)
    if np.isnan(features_LD).all():
        raise MsekitError("no picture shows a face")
    return features_LD


def cut_to_faces(
    pictures: Iterable[np.ndarray], face: FaceChoice, engine: str | None = None
) -> Iterator[np.ndarray | None]:
    """Cut pictures to a square around the face, a quarter wider than it; None for one without a face.

    Raises:
        MsekitError: No picture shows a face, or the engine cannot be used here.
    """
    found = False
    for picture, faces in face_engine(engine or default_engine()).faces(pictures):
        if not faces:
            yield None
            continue
        found = True
        marks_M3 = choose_face(faces, face)
        low_2, high_2 = marks_M3[:, :2].min(axis=0), marks_M3[:, :2].max(axis=0)
        half = float((high_2 - low_2).max()) * 0.625
        (x, y), (height, width) = (low_2 + high_2) / 2, picture.shape[:2]
        left, right = max(int(x - half), 0), min(int(x + half) + 1, width)
        top, bottom = max(int(y - half), 0), min(int(y + half) + 1, height)
        yield picture[top:bottom, left:right]
    if not found:
        raise MsekitError("no picture shows a face")


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
