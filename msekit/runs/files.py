"""The names of a run's files, and how text and JSON are written: whole or not at all, with a checksum. No torch.

Texts are plain and may be changed by hand, so whoever reads one that is not as msekit wrote it is warned (tensors are
refused: `runs/tensors.py`). Files of the first runs have no checksum.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from msekit.errors import MsekitError
from msekit.paths import on_disk
from msekit.words import reason

_LOG = logging.getLogger(__name__)
_KEY = "checksum"
_COMMENT = f"# {_KEY} "

CONFIG = "config.yaml"
"""The resolved settings."""
ADAPTER = "adapter.safetensors"
"""The best epoch's tensors."""
DESCRIPTION = "adapter.json"
"""What the tensors are and were trained on: `runs/description.py`."""
METRICS = "metrics.jsonl"
"""A line per epoch."""
STEPS = "steps.jsonl"
"""A line per optimiser step: `training/step_log.py`."""
TRACKING = "tracking.json"
"""How far each experiment tracker has been told: `training/trackers.py`."""
PREDICTIONS = "predictions-test.jsonl"
"""A line per test sample: `runs/predictions.py`."""
REPORT = "report.json"
"""The result; a folder that has one is a finished run: `runs/report.py`."""
STATE = "state/state.safetensors"
"""What a stopped run goes on from: `training/checkpoint.py`."""
EARLIER = "after-{}-epochs"
"""Folder of what a run gave at an earlier end, before it was asked for more epochs."""
LOCK = ".lock"
"""Held by the process that trains into the folder, which it names: `runs/lock.py`."""
SUMMARY = "summary.json"
"""Mean and deviation over the seeds; it lies beside their folders."""
FOLDS = "folds.json"
"""What a cross-validation came to; it lies beside the folds' folders: `experiments/folds.py`."""
POOLED = "predictions-folds.jsonl"
"""A line per test sample of every fold and seed; likewise."""
STUDY = "study.log"
"""Optuna's journal of a search: `experiments/search.py`."""
SEARCH = "search.json"
"""What a search came to; likewise."""
ROBUSTNESS = "robustness.json"
"""What is left with modalities withheld."""
CALIBRATION = "calibration.json"
"""How far the scores can be believed."""

FULL = "all there"
"""The case of `robustness.json` in which nothing is withheld."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file of another name to write to, which then takes the place of `path`; nothing is left of a failure,
    nor of one in which the process was killed.

    What was written is on the disk before the name is, and the name before anything that follows: after a power cut a
    file is the old one or the new one, and a report is never there before what it reports on.

    Raises:
        MsekitError: The disk is full or cannot be written.
    """
    here = f".{path.name}.{socket.gethostname()}"
    partial = path.with_name(f"{here}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(here)}.*.partial"):
            if not _runs(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
        yield partial
        on_disk(partial)
        os.replace(partial, path)
        on_disk(path.parent)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise MsekitError(
            f"the run folder cannot be written: {reason(error)}", where=path, fix="Free some space, then use --resume."
        ) from error


def _runs(process: str) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write one JSON document atomically."""
    write_text(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write a JSON-lines file atomically."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A JSON document with the checksum of what it says."""
    return document | {_KEY: _of_document(document)}


def opened(document: dict[str, Any], where: Path) -> dict[str, Any]:
    """The document without its checksum; a warning where it says something else than was written."""
    content = {key: value for key, value in document.items() if key != _KEY}
    if _KEY in document and document[_KEY] != _of_document(content):
        _tell(where)
    return content


def sealed_text(text: str) -> str:
    """A YAML with the checksum of its lines in a comment behind them."""
    return f"{text}{_COMMENT}{digest_of(text.encode())}\n"


def check_text(content: bytes, where: Path) -> None:
    """Warn where the lines before such a comment are not those that were written."""
    text, comment, rest = content.rpartition(_COMMENT.encode())
    if comment and rest.strip().decode("utf-8", "replace") != digest_of(text):
        _tell(where)


def check_digest(content: bytes, written: str | None, where: Path) -> None:
    """Warn where a file is not the one whose digest was written elsewhere; None where none was."""
    if written is not None and digest_of(content) != written:
        _tell(where)


def digest_of(content: bytes) -> str:
    """sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def _of_document(document: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(document))  # what has another type in memory is the same on disk
    return digest_of(json.dumps(as_read, sort_keys=True).encode())


def _tell(where: Path) -> None:
    _LOG.warning("%s is not as msekit wrote it: it is damaged, or was changed by hand", where)
