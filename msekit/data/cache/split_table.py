"""One split of a cache: SplitTable, which reads its Arrow file without copying, and the records of what was stored.

Columns: id, text, label (float64; of several targets a list of them, a number for each question of `data/targets.py`),
audio and vision (a sample's frames one after the other, L·D values), audio_length and vision_length (frames), speaker,
dialogue_id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from msekit.data.cache.mapped import MappedFile


class CacheSettings(BaseModel):
    """The user's choice of how features are stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["float32", "float16"] = "float32"


class ModalityInfo(BaseModel):
    """Audio or vision of a whole set. Statistics: over finite values of the train split's real frames."""

    width: int
    """Features per frame; 0 where no sample has this modality."""
    mean: list[float]
    std: list[float]
    """Population standard deviation; 1 where a feature is constant."""
    nonfinite: dict[str, int]
    """Split → values that were NaN or infinite."""
    nonfinite_rows: dict[str, int]
    """Split → samples that hold such a value."""
    absent: dict[str, int]
    """Split → samples without this modality."""
    longest: int
    """Frames of the longest sequence."""


class SplitInfo(BaseModel):
    """The record of one split's Arrow file: its size and checksum, and the counts of its labels."""

    samples: int
    bytes: int
    crc32: int
    label_counts: dict[str, int]
    """Class name (erc) or intensity to one decimal (msa) → samples; of several targets `target:label` → samples."""


class SplitTable:
    """One split, memory-mapped. Row order is the published file's.

    Args:
        path: The Arrow file.
        name: Split name.
        audio_width: Features per frame; 0 where the set has no audio.
        vision_width: Features per frame; 0 where the set has no vision.
    """

    def __init__(self, path: Path, name: str, audio_width: int, vision_width: int) -> None:
        from datasets import Dataset

        self.name, self._file = name, MappedFile(path)
        table = Dataset.from_file(str(path)).data
        self.ids: list[str] = table.column("id").to_pylist()
        self.texts: list[str] = table.column("text").to_pylist()
        self.speakers: list[str | None] = table.column("speaker").to_pylist()
        self.dialogues: list[str | None] = table.column("dialogue_id").to_pylist()
        self.labels: np.ndarray = _labels(table.column("label"))
        """float64 [N]: class numbers (erc) or intensities (msa); NaN for a sample of test without a label. Of several
        targets [N, questions]; NaN where a sample does not answer one."""
        self.audio_lengths: np.ndarray = table.column("audio_length").to_numpy().astype(np.int64)
        """int64 [N], frames; 0 where the sample has no audio."""
        self.vision_lengths: np.ndarray = table.column("vision_length").to_numpy().astype(np.int64)
        self._audio = _views(table.column("audio"), audio_width)
        self._vision = _views(table.column("vision"), vision_width)

    def __len__(self) -> int:
        return len(self.ids)

    def audio(self, index: int) -> np.ndarray:
        """Frames [L, D] of one sample in the cache's dtype, a read-only view into the file; NaN where non-finite.

        Raises:
            MsekitError: The file was cut short since it was opened.
        """
        self._file.refuse_cut()
        return self._audio[index]

    def vision(self, index: int) -> np.ndarray:
        """As `audio`."""
        self._file.refuse_cut()
        return self._vision[index]


def _labels(column: Any) -> np.ndarray:
    """Numbers as they are; lists of one length as rows."""
    if not hasattr(column.type, "value_type"):
        values: np.ndarray = column.to_numpy()
        return values
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return flat.reshape(len(column), -1)


def _views(column: Any, width: int) -> list[np.ndarray]:
    """Arrow list column (chunked) → one [L, D] view per row, without copying."""
    views: list[np.ndarray] = []
    for chunk in column.chunks:
        values, offsets = chunk.values.to_numpy(zero_copy_only=True), chunk.offsets.to_numpy()
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            views.append(values[start:stop].reshape((stop - start) // max(width, 1), width))
    return views
