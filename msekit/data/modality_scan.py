"""Audio or vision of one split, counted as its rows pass.

L: frames. D: features per frame.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

ABSENT = "is absent"
_FLOAT16_MAX, _FLOAT32_MAX = 65504.0, float(np.finfo(np.float32).max)


class ModalityCheck(BaseModel):
    """Audio or vision of one split; counts of samples unless said otherwise."""

    present: int = 0
    absent: int = 0
    width: int = 0
    frames: list[int] = []
    """Shortest, median and longest sequence."""
    all_zero: int = 0
    with_nonfinite: int = 0
    nan: int = 0
    """Values."""
    positive_infinite: int = 0
    negative_infinite: int = 0
    beyond_float16: int = 0
    """Finite values that float16 cannot hold."""
    beyond_float32: int = 0
    constant: list[int] = []
    """Features that have one value in all frames of the split."""


class ModalityScan:
    """Audio or vision of one split, as its rows pass."""

    def __init__(self) -> None:
        self.check = ModalityCheck()
        self.lengths: list[int] = []
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None

    def add(self, frames_LD: np.ndarray | None) -> list[str]:
        """Count a sample's frames; returns what is odd about them."""
        check = self.check
        if frames_LD is None:
            check.absent += 1
            return [ABSENT]
        check.present += 1
        check.width = frames_LD.shape[1]
        self.lengths.append(len(frames_LD))
        odd = []
        if not np.isfinite(frames_LD).all():
            check.with_nonfinite += 1
            check.nan += int(np.isnan(frames_LD).sum())
            check.positive_infinite += int(np.isposinf(frames_LD).sum())
            check.negative_infinite += int(np.isneginf(frames_LD).sum())
            odd.append("holds NaN or infinite values")
            frames_LD = np.where(np.isfinite(frames_LD), frames_LD, np.nan)
        low_D, high_D = np.fmin.reduce(frames_LD, axis=0), np.fmax.reduce(frames_LD, axis=0)
        largest = float(np.fmax(np.abs(low_D.astype(np.float64)), np.abs(high_D.astype(np.float64))).max())
        if largest == 0:
            check.all_zero += 1
            odd.append("is zero throughout")
        if largest > _FLOAT16_MAX:
            check.beyond_float16 += int((np.abs(frames_LD) > _FLOAT16_MAX).sum())
        if largest > _FLOAT32_MAX:
            check.beyond_float32 += int((np.abs(frames_LD) > _FLOAT32_MAX).sum())
            odd.append("holds values beyond float32")
        self.low = low_D if self.low is None else np.fmin(self.low, low_D)
        self.high = high_D if self.high is None else np.fmax(self.high, high_D)
        return odd

    def outcome(self) -> ModalityCheck:
        """The counts."""
        if self.low is not None and self.high is not None:
            self.check.constant = np.flatnonzero(~(self.low < self.high)).tolist()
            ordered = sorted(self.lengths)
            self.check.frames = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
        return self.check
