"""Extractors that other packages add, by entry points in the group `msekit.extractors`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from msekit.added import Table
from msekit.data.extractor import Extractor
from msekit.errors import MsekitError, nearest


@dataclass(frozen=True)
class AddedExtractor:
    """An extractor of one modality."""

    modality: Literal["audio", "vision"]
    record: Extractor
    """Kept beside the features and compared: its name is that of the entry point."""
    features: Callable[[Any], np.ndarray]
    """(S,) mono sound at 16 kHz, or the pictures of a clip one after the other ((H, W, 3) uint8), → (L, D)."""
    pictures_per_second: float = 10.0
    """Vision only."""


EXTRACTORS: Table[AddedExtractor] = Table("extractors", AddedExtractor, {})


def added_extractor(name: str, modality: str, own: tuple[str, ...]) -> AddedExtractor:
    """The extractor of a name that is none of msekit's own.

    Raises:
        MsekitError: No package adds it, or it is of the other modality, or calls itself otherwise.
    """
    if name not in EXTRACTORS:
        raise MsekitError(
            f"there is no extractor '{name}' for {modality}", fix=nearest(name, [*own, *EXTRACTORS.names])
        )
    added = EXTRACTORS[name]
    if added.modality != modality or added.record.name != name:
        raise MsekitError(f"the extractor '{name}' is {added.record} for {added.modality}, not for {modality}")
    return added
