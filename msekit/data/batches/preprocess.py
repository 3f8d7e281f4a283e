"""Preprocessor: what happens to a feature sequence between the cache and the adapter: standardise, trim, shorten.

Beside the sequence an adapter may read its summary: statistics of every feature over all frames in which it is there,
which keep what an LSTM's last state over hundreds of frames has to learn to keep. A feature is not there where it has
its resting value, the one number that extractors write where there is nothing to measure: the pitch of a pause is 0.

No step has a trained parameter; recipe `paper` switches all but the cleaning off. Shapes: N samples, L frames, D
features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from msekit.adapters.sizes import STATISTICS

if TYPE_CHECKING:
    from msekit.data.cache.split_table import ModalityInfo

PERCENTILES = (20, 80)
_LARGEST = 1e15  # of a statistic: further mean and deviation of such are within float32
_RESTING_SHARE = 0.05  # of the frames with one and the same value, from which it is a resting value
_SAME = 2.0**-10  # of a value: what half precision rounds away


class Preprocessor(BaseModel):
    """What is done to one modality's sequences before the adapter reads them; stored with the adapter.

    Args:
        mean: (D,) mean of the train split's frames; None leaves the scale as it is.
        std: (D,) deviation of the same frames.
        trim: Cut the still beginning and end (see `trimmed`); 0 for not at all.
        max_frames: Average longer sequences down to this many frames (see `shortened`); None for not at all.
        stand_in: Replace the sequence by one zero vector of this many numbers, to which `Collator` adds its noise (the
            ablation without audio and vision reads random vectors so); 0 for not at all.
        rest: (D,) resting value of each feature, unstandardised, for summaries (see `resting_values`); None for a
            feature that has none, or where there are no summaries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: list[float] | None = None
    std: list[Annotated[float, Field(gt=0)]] | None = None
    trim: float = Field(0.0, ge=0, lt=1)
    max_frames: int | None = Field(None, ge=1)
    stand_in: int = Field(0, ge=0, le=1 << 20)
    rest: list[float | None] | None = None

    def model_post_init(self, _: Any) -> None:
        """Convert the statistics to arrays once, not for every sample."""
        self._mean, self._std = (
            None if values is None else np.asarray(values, np.float32) for values in (self.mean, self.std)
        )
        if self.rest is not None:
            self._rest = np.array([math.nan if value is None else value for value in self.rest], np.float32)

    _mean: np.ndarray | None = None
    _std: np.ndarray | None = None
    _rest: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        info: ModalityInfo,
        standardise: bool,
        trim: float,
        max_frames: int | None,
        rest: list[float | None] | None = None,
    ) -> Preprocessor:
        """The preprocessor that settings ask for, with a cache's statistics."""
        mean, std = (info.mean, info.std) if standardise else (None, None)
        return cls(mean=mean, std=std, trim=trim, max_frames=max_frames, rest=rest)

    def __call__(self, frames_LD: np.ndarray) -> np.ndarray:
        """(L, D) → (at most L, D) float32. Non-finite values become 0, which is the mean once standardised."""
        if self.stand_in:
            return np.zeros((1, self.stand_in), np.float32)
        frames_LD = self._scaled(frames_LD)
        if self.trim:
            frames_LD = trimmed(frames_LD, self.trim)
        return frames_LD if self.max_frames is None else shortened(frames_LD, self.max_frames)

    def summaries(self, frames_NLD: np.ndarray) -> np.ndarray:
        """(N, L, D) of samples of one length → (N, 7 D) float32, of every feature: mean, deviation, 20th and 80th
        percentile and mean size of the change from a frame to the next, over the frames in which it is there (over
        all, if it is in none); the share of such frames; and how often it sets in, per frame. Zeros without frames.

        Features are standardised as for the sequence, but neither trimmed nor shortened.
        """
        samples, length, width = frames_NLD.shape
        if not length:
            return np.zeros((samples, STATISTICS * width), np.float32)
        there_NLD = self._there(frames_NLD)
        share_ND = there_NLD.mean(axis=1)
        onsets_ND = (there_NLD[:, 1:] & ~there_NLD[:, :-1]).sum(axis=1) / length
        there_NLD |= (share_ND == 0)[:, None]
        frames_NLD = self._scaled(frames_NLD).astype(np.float64)  # squares of large values are beyond float32
        pairs_NLD = there_NLD[:, 1:] & there_NLD[:, :-1]
        changes_ND = (np.abs(np.diff(frames_NLD, axis=1)) * pairs_NLD).sum(axis=1)
        changes_ND /= np.maximum(pairs_NLD.sum(axis=1), 1)
        mean_ND, deviation_ND = (of(frames_NLD, axis=1, where=there_NLD) for of in (np.mean, np.std))
        percentiles = [percentile(frames_NLD, there_NLD, wanted) for wanted in PERCENTILES]
        columns = [mean_ND, deviation_ND, *percentiles, changes_ND, share_ND, onsets_ND]
        return np.concatenate(columns, axis=1).clip(-_LARGEST, _LARGEST).astype(np.float32)

    def _there(self, frames_NLD: np.ndarray) -> np.ndarray:
        """(N, L, D) bool: whether a feature has a value in a frame, and not its resting value."""
        frames_NLD = frames_NLD.astype(np.float32)
        there_NLD = np.isfinite(frames_NLD)
        if self._rest is not None:
            with np.errstate(invalid="ignore"):
                there_NLD &= ~(np.abs(frames_NLD - self._rest) <= _SAME * np.abs(self._rest))
        return there_NLD

    def _scaled(self, frames: np.ndarray) -> np.ndarray:
        """(…, D) standardised, float32; what is not finite becomes 0."""
        frames = frames.astype(np.float32)
        if self._mean is not None and self._std is not None:
            frames -= self._mean
            frames /= self._std
        finite = np.isfinite(frames)
        if not finite.all():
            frames[~finite] = 0.0
        return frames


def resting_values(frames_LD: np.ndarray) -> list[float | None]:
    """The value that each feature has in more frames than any other, if it is in more than a twentieth of them.

    Args:
        frames_LD: (L, D) of many samples, one after the other, unstandardised.

    Returns:
        (D,); None for a feature that has none.
    """
    values = []
    for column_L in frames_LD.T:
        value_V, count_V = np.unique(column_L[np.isfinite(column_L)], return_counts=True)
        most = int(count_V.argmax()) if len(count_V) else 0
        rests = len(count_V) > 1 and count_V[most] > _RESTING_SHARE * len(column_L)
        values.append(float(value_V[most]) if rests else None)
    return values


def percentile(frames_NLD: np.ndarray, there_NLD: np.ndarray, wanted: float) -> np.ndarray:
    """(N, D) a percentile of each column, over the frames in which it is there; interpolated as by `np.percentile`."""
    sorted_NLD = np.sort(np.where(there_NLD, frames_NLD, np.inf), axis=1)
    place_ND = wanted / 100 * (there_NLD.sum(axis=1) - 1)
    rows = (np.floor(place_ND).astype(int), np.ceil(place_ND).astype(int))
    below_ND, above_ND = (np.take_along_axis(sorted_NLD, row_ND[:, None], axis=1)[:, 0] for row_ND in rows)
    return below_ND + (place_ND - rows[0]) * (above_ND - below_ND)


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
