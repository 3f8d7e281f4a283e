"""How long a run takes here: by runs of its kind that ended here, or else by how fast the CPU multiplies. No torch.

The second is rough: the frozen LLM is two operations a parameter and token forward, and as many on the way back to the
pseudo tokens; everything else counts as a share of them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msekit.errors import MsekitError
from msekit.gpu import card_at_hand
from msekit.patience import in_time
from msekit.runs.files import REPORT
from msekit.runs.report import read_report

if TYPE_CHECKING:
    from msekit.planning.plan_run import Plan

_SIDE, _SECONDS = 1024, 0.2  # of the product that is timed, and for how long
_FORWARD, _BACKWARD, _AGAIN = 2, 2, 2
"""Operations for every parameter and token; the last where layers are recomputed."""
_REST = 1.6
"""What passes cost beside their large products: attention, norms, the adapter, the head. With it an estimate is right
within a factor of two or three, which is all that it is for."""
_OF_THE_LONGEST = 0.5
"""Tokens of the mean sample, as a share of the longest that the plan counts with."""


def multiplications() -> float:
    """Floating-point operations a second of a large product in fp32 on this CPU, on the threads that it may use."""
    import numpy as np

    a = np.ones((_SIDE, _SIDE), np.float32)
    a @ a  # the first one wakes the threads
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        a @ a
        count += 1
    return count * 2 * _SIDE**3 / (time.perf_counter() - began)


def speed_of_earlier_runs(folder: Path, backbone: str, dataset: str) -> float | None:
    """Training samples a second of the finished runs beside a run's folder on that backbone and data set.

    Args:
        folder: Of the seeds' folders; runs in the folders beside it count, too.
        backbone: Its name.
        dataset: The set's name.
    """
    speeds = []
    for file in sorted(folder.parent.glob(f"*/seed-*/{REPORT}"))[:200]:
        try:
            report = read_report(file.parent)
        except MsekitError:  # a damaged report of another run is no reason to say nothing
            continue
        if report and (report.backbone, report.dataset) == (backbone, dataset) and report.train_samples_per_s:
            speeds.append(report.train_samples_per_s)
    return sum(speeds) / len(speeds) if speeds else None


def expected_seconds(plan: Plan, parameters: int, samples: int, epochs: int) -> tuple[float, str] | None:
    """How long so many epochs take, and what that is reckoned from; None on a GPU before a first run.

    Args:
        plan: The run.
        parameters: Of the LLM.
        samples: Of an epoch.
        epochs: Of the schedule.
    """
    config = plan.config
    speed = speed_of_earlier_runs(config.output.parent, config.backbone, Path(config.dataset).stem)
    if speed is not None:
        return samples * epochs / speed, f"at the {speed:.1f} samples/s of finished runs"
    if card_at_hand() is not None:
        return None
    operations = _FORWARD + _BACKWARD + (_AGAIN if plan.checkpointing else 0)
    tokens = max(plan.work.tokens * _OF_THE_LONGEST, 1)
    speed = multiplications() / (operations * parameters * tokens * _REST)
    threads = os.environ.get("OMP_NUM_THREADS")
    beside = f", OMP_NUM_THREADS={threads}" if threads else ""
    return (
        samples * epochs / speed,
        f"roughly, at about {_shown(speed)} samples/s by how fast this CPU multiplies{beside}",
    )


def line_of(seconds: float, epochs: int, how: str) -> str:
    """One line about a run's duration."""
    return f"{epochs} epochs take about {in_time(seconds)} on this machine ({how}), if training does not end early"


def _shown(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
