"""Being one of several processes: known from the environment alone, before torch is loaded."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

LAUNCHED = "MSEKIT_LAUNCHED"
"""Set for processes that `msekit train --launch` started: they leave their error to it."""


def is_main_process() -> bool:
    """Whether this process speaks for the run."""
    return int(os.environ.get("RANK", "0")) == 0


def already_launched() -> bool:
    """Whether a launcher (ours, accelerate's, torchrun) started this process."""
    return "LOCAL_RANK" in os.environ


def hand_over(message: str) -> bool:
    """Leave an error to the launcher that started this process, if ours did.

    Returns:
        Whether it was handed over; otherwise the process must print it itself.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None or LAUNCHED not in os.environ:
        return False
    Path(file).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    return True
