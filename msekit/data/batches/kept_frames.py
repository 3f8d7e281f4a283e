"""KeptFrames: a split's frames as they reach the adapter, made when a batch first asks for them, then kept.

Scaling, trimming and averaging are the larger part of what it takes to make a batch, and the same in every epoch. A GPU
that computes several seeds at once would wait for them. Averaged sequences are short: 16 frames of 128 features are
8 kB a sample.

Shapes: L frames, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msekit.data.batches.preprocess import Preprocessor

if TYPE_CHECKING:
    from msekit.data.samples import Samples

MOST_BYTES = 128 << 20
"""That a split's frames may take; those that no longer fit are made anew for every batch."""


class KeptFrames:
    """The frames of one split, by one way of each modality.

    Args:
        split: The samples.
        ways: Modality → what happens to its frames; those of modalities that are not averaged are not kept.
    """

    def __init__(self, split: Samples, ways: dict[str, Preprocessor | None]) -> None:
        self._split, self._room = split, MOST_BYTES
        self._ways = {name: way for name, way in ways.items() if way is not None and way.max_frames is not None}
        self._frames: dict[tuple[str, int], np.ndarray] = {}

    def get(self, split: Samples, name: str, way: Preprocessor, position: int) -> np.ndarray:
        """(L, D) frames of a modality of one sample; not to be written to.

        Of another split, or by another way, they are made anew.
        """
        if split is not self._split or way is not self._ways.get(name):
            return way(getattr(split, name)(position))
        frames_LD = self._frames.get((name, position))
        if frames_LD is None:
            frames_LD = way(getattr(split, name)(position))
            if frames_LD.nbytes <= self._room:
                self._room -= frames_LD.nbytes
                # a part of the whole sequence would keep all of it
                self._frames[name, position] = frames_LD = frames_LD.copy()
        return frames_LD
