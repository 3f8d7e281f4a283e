"""Being one of several processes: known from the environment alone, before torch is loaded."""

from __future__ import annotations

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

from msekit.errors import needs_extra

STOPPING = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What schedulers send before they take a machine away; Windows has the first alone."""

LAUNCHED = "MSEKIT_LAUNCHED"
"""Set for processes that `msekit train --launch` started: they leave their error to it."""


def is_main_process() -> bool:
    """Whether this process speaks for the run."""
    return int(os.environ.get("RANK", "0")) == 0


def already_launched() -> bool:
    """Whether a launcher (ours, accelerate's, torchrun) started this process."""
    return "LOCAL_RANK" in os.environ


def check_deepspeed() -> None:
    """Refuse ZeRO without DeepSpeed.

    Raises:
        MsekitError: It cannot be found.
    """
    if find_spec("deepspeed") is None:
        raise needs_extra("ZeRO needs DeepSpeed (Linux)", "zero", "use --launch ddp")


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
