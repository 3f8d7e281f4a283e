"""The face landmarker's model: a file of its own, fetched by a command that asks for it and by nothing else.

It comes from Google's publication; the sum is of that file, and another one is not used.
"""

from __future__ import annotations

import os
from pathlib import Path

from msekit.downloads import fetch_file
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.wheels import check_sum

MODEL = "face_landmarker.task"
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
URL = f"https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/{MODEL}"
OWN = "MSEKIT_FACE_MODEL"
"""Environment variable: the path of a file of one's own."""
FETCH = "msekit cache fetch-face-model"


def face_model() -> Path:
    """The model on this machine; nothing is fetched.

    Raises:
        MsekitError: It is not here, or is another file.
    """
    own = os.environ.get(OWN)
    path = Path(own).expanduser() if own else cache_root() / "downloads" / MODEL
    if not path.is_file():
        fix = f"Check {OWN}." if own else f"Fetch it with `{FETCH}`, or name a file of your own in {OWN}."
        raise MsekitError("the face landmarker's model is not on this machine", where=path, fix=fix)
    check_sum(path, MODEL_SHA256)
    return path


def fetch_face_model() -> Path:
    """The model, fetched where it is not on this machine.

    Raises:
        MsekitError: It cannot be fetched, or is another file.
    """
    path = cache_root() / "downloads" / MODEL
    if not os.environ.get(OWN) and not path.is_file():
        fetch_file(URL, path, MODEL_SHA256, f"Or name a file of your own in {OWN}.")
    return face_model()
