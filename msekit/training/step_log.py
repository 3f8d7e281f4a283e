"""`steps.jsonl`: a line per optimiser step, each step once, also where a run was killed and went on.

A state is saved behind the lines of its steps; whoever goes on from it cuts off what came later, for it comes again.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError
from msekit.runs.files import STEPS, write_lines
from msekit.training.callbacks import StepTaken


def step_line(event: StepTaken) -> dict[str, Any]:
    """A step as the log has it; a number that is not finite is null."""
    numbers = {
        "loss": event.loss,
        "gradient_norm": event.norm,
        "learning_rate": event.rate,
        "samples_per_s": round(event.samples_per_s, 3),
        "memory_bytes": event.memory_bytes,
    }
    return {"step": event.step, "epoch": event.epoch} | {
        name: value if math.isfinite(value) else None for name, value in numbers.items()
    }


def logged(folder: Path, last: int) -> list[dict[str, Any]]:
    """The lines of the steps up to `last`; one that a kill left half-written, and whatever follows, is left out."""
    lines: list[dict[str, Any]] = []
    if last and (folder / STEPS).is_file():
        for text in (folder / STEPS).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                break
            if line["step"] <= last:
                lines.append(line)
    return lines


class StepLog:
    """The file, open while a run trains.

    Args:
        folder: The run's.
        last: The last step of the state that the run goes on from; 0 for a new one.
    """

    def __init__(self, folder: Path, last: int) -> None:
        self.path = folder / STEPS
        self.before = logged(folder, last)
        write_lines(self.path, self.before)
        self.file = self.path.open("a", encoding="utf-8")

    def add(self, event: StepTaken) -> None:
        """One more line; on disk at the next `flush`.

        Raises:
            MsekitError: The disk is full.
        """
        try:
            self.file.write(json.dumps(step_line(event)) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> None:
        """Put all lines on disk.

        Raises:
            MsekitError: The disk is full.
        """
        try:
            self.file.flush()
            os.fsync(self.file.fileno())  # the state that is saved behind it is on disk, too
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Flush as far as it goes, and close."""
        try:
            self.file.close()
        except OSError:  # the run ends with the error that came first
            self.file = self.path.open("a", encoding="utf-8")
            self.file.close()

    def _unwritable(self, error: OSError) -> MsekitError:
        fix = "Free some space, then use --resume."
        return MsekitError(f"the run folder cannot be written: {error}", where=self.path, fix=fix)
