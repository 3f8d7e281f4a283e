"""Samples: what a Collator reads, whether it comes from a cache or from a user's hands."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Samples(Protocol):
    """N samples in a fixed order."""

    @property
    def ids(self) -> list[str]:
        """(N) names."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) float64 class numbers or intensities, of several targets (N, Q); zeros where they are not known."""

    @property
    def audio_lengths(self) -> np.ndarray:
        """(N,) int64 frames; 0 where a sample has no audio."""

    @property
    def vision_lengths(self) -> np.ndarray:
        """(N,) int64 frames; 0 where a sample has no vision."""

    def __len__(self) -> int: ...

    def audio(self, index: int) -> np.ndarray:
        """(L, D) frames of one sample; NaN where a value was not finite."""

    def vision(self, index: int) -> np.ndarray:
        """(L, D) frames of one sample; NaN where a value was not finite."""
