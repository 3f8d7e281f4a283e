"""Preprocessor: what happens to a feature sequence between the cache and the adapter: standardise, trim, shorten.

Beside the sequence an adapter may read its summary: the mean, the deviation, two percentiles and the mean change of
every feature over all frames, which keep what an LSTM's last state over hundreds of frames has to learn to keep.

No step has a trained parameter; recipe `paper` switches all but the cleaning off. Shapes: L frames, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from msekit.adapters.sizes import STATISTICS

if TYPE_CHECKING:
    from msekit.data.cache.split_table import ModalityInfo

PERCENTILES = (20, 80)
_LARGEST = 1e15  # of a statistic: further mean and deviation of such are within float32


class Preprocessor(BaseModel):
    """What is done to one modality's sequences before the adapter reads them; stored with the adapter.

    Args:
        mean: (D,) mean of the train split's frames; None leaves the scale as it is.
        std: (D,) deviation of the same frames.
        trim: Cut the still beginning and end (see `trimmed`); 0 for not at all.
        max_frames: Average longer sequences down to this many frames (see `shortened`); None for not at all.
        stand_in: Replace the sequence by one zero vector of this many numbers, to which `Collator` adds its noise (the
            ablation without audio and vision reads random vectors so); 0 for not at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: list[float] | None = None
    std: list[float] | None = None
    trim: float = 0.0
    max_frames: int | None = None
    stand_in: int = 0

    def model_post_init(self, _: Any) -> None:
        """Convert the statistics to arrays once, not for every sample."""
        self._mean, self._std = (
            None if values is None else np.asarray(values, np.float32) for values in (self.mean, self.std)
        )

    _mean: np.ndarray | None = None
    _std: np.ndarray | None = None

    @classmethod
    def of(cls, info: ModalityInfo, standardise: bool, trim: float, max_frames: int | None) -> Preprocessor:
        """The preprocessor that settings ask for, with a cache's statistics."""
        mean, std = (info.mean, info.std) if standardise else (None, None)
        return cls(mean=mean, std=std, trim=trim, max_frames=max_frames)

    def __call__(self, frames_LD: np.ndarray) -> np.ndarray:
        """(L, D) → (at most L, D) float32. Non-finite values become 0, which is the mean once standardised."""
        if self.stand_in:
            return np.zeros((1, self.stand_in), np.float32)
        frames_LD = self._scaled(frames_LD)
        if self.trim:
            frames_LD = trimmed(frames_LD, self.trim)
        return frames_LD if self.max_frames is None else shortened(frames_LD, self.max_frames)

    def summary(self, frames_LD: np.ndarray) -> np.ndarray:
        """(L, D) → (5 D,) float32: mean, deviation, 20th and 80th percentile, and mean size of the change from a frame
        to the next, over all frames; zeros without frames.

        Features are standardised as for the sequence, but neither trimmed nor shortened.
        """
        if not len(frames_LD):
            return np.zeros(STATISTICS * frames_LD.shape[1], np.float32)
        frames_LD = self._scaled(frames_LD).astype(np.float64)  # squares of large values are beyond float32
        percentiles = np.percentile(frames_LD, PERCENTILES, axis=0)
        changes_LD = np.abs(np.diff(frames_LD, axis=0)) if len(frames_LD) > 1 else np.zeros_like(frames_LD)
        rows = [frames_LD.mean(axis=0), frames_LD.std(axis=0), *percentiles, changes_LD.mean(axis=0)]
        return np.concatenate(rows).clip(-_LARGEST, _LARGEST).astype(np.float32)

    def _scaled(self, frames_LD: np.ndarray) -> np.ndarray:
        frames_LD = frames_LD.astype(np.float32)
        if self._mean is not None and self._std is not None:
            frames_LD -= self._mean
            frames_LD /= self._std
        finite_LD = np.isfinite(frames_LD)
        if not finite_LD.all():
            frames_LD[~finite_LD] = 0.0
        return frames_LD


def trimmed(frames_LD: np.ndarray, share: float) -> np.ndarray:
    """Cut a sequence's still beginning and end, such as the silence around speech.

    A leading frame is still while its RMS distance from the first frame is at most `share` of the largest such
    distance in the sequence; trailing frames likewise, from the last. An LSTM's last state forgets what lies before
    a long silence, so without the cut it may hold nothing of the speech.
    """
    if len(frames_LD) < 3:
        return frames_LD
    from_first_L, from_last_L = (np.sqrt(np.square(frames_LD - frames_LD[edge]).mean(axis=1)) for edge in (0, -1))
    start = int(np.argmax(from_first_L > share * from_first_L.max()))
    stop = len(frames_LD) - int(np.argmax(from_last_L[::-1] > share * from_last_L.max()))
    return frames_LD[start:stop] if stop - start >= 2 else frames_LD


def shortened(frames_LD: np.ndarray, limit: int) -> np.ndarray:
    """Average equal windows of a long sequence, so that at most `limit` frames remain. (L, D) → (≤ limit, D)."""
    length = len(frames_LD)
    if length <= limit:
        return frames_LD
    edges = np.linspace(0, length, limit + 1).round().astype(np.int64)
    sums_D = np.add.reduceat(frames_LD, edges[:-1], axis=0)
    return (sums_D / np.diff(edges)[:, None]).astype(np.float32)
