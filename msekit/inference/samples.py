"""Samples handed over for prediction: checked one by one, then read by the same Collator that training uses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msekit.data.catalogue import MODALITIES
from msekit.errors import MsekitError
from msekit.inference.given_features import frames_of
from msekit.runs.description import Description

LONGEST_TEXT = 100_000
"""Characters; an utterance is expected, and what exceeds the plug-in's limit of tokens is cut anyway."""


@dataclass(frozen=True)
class Prepared:
    """A sample that can be predicted."""

    id: str
    text: str
    audio: np.ndarray
    """(L, D); L = 0 where the sample has none."""
    vision: np.ndarray
    notes: tuple[str, ...]
    """What was done to it that the user may want to know."""
    seconds: float
    """Spent on reading and checking it."""

    @property
    def bytes(self) -> int:
        """Of its features."""
        return self.audio.nbytes + self.vision.nbytes


def prepare_sample(
    description: Description, id: str, text: Any, features: dict[str, Any], where: object = None
) -> Prepared:
    """Check one sample.

    Args:
        description: Of the plug-in.
        id: Its name.
        text: What was said.
        features: `audio` and `vision`: see `frames_of`; None or no key for a modality that is missing.
        where: What an error message names.

    Raises:
        MsekitError: The text or a modality cannot be used.
    """
    start = time.perf_counter()
    if not isinstance(text, str):
        raise MsekitError(f"'text' is a {type(text).__name__}, not a text", where=where)
    if len(text) > LONGEST_TEXT:
        raise MsekitError(f"'text' has {len(text)} characters, more than {LONGEST_TEXT}", where=where)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MsekitError(f"'text' is not valid text: {error.reason}", where=where) from error
    notes, frames = [], {}
    for modality in MODALITIES:
        width = description.widths[modality]  # type: ignore[index]
        frames[modality] = np.zeros((0, width), description.feature_dtype)
        value = features.get(modality)
        if value is None and width and description.on_missing == "error":
            raise MsekitError(f"'{modality}' is missing, which this plug-in's run refuses", where=where)
        if value is not None and not width:
            notes.append(f"this plug-in reads no {modality}: it was left out")
        elif value is not None:
            extractor = description.dataset.extractors.get(modality)  # type: ignore[call-overload]
            read = frames_of(value, modality, width, description.feature_dtype, where, extractor)
            frames[modality] = read.values
            if read.replaced:
                notes.append(f"{read.replaced} values of {modality} were not finite and were replaced by the mean")
    return Prepared(id, text, frames["audio"], frames["vision"], tuple(notes), time.perf_counter() - start)


class PreparedSamples:
    """Prepared samples as a Collator reads them: `data.samples.Samples`."""

    def __init__(self, samples: Sequence[Prepared]) -> None:
        self.ids = [sample.id for sample in samples]
        self.labels = np.zeros(len(samples))
        self.audio_lengths = np.array([len(sample.audio) for sample in samples], np.int64)
        self.vision_lengths = np.array([len(sample.vision) for sample in samples], np.int64)
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def audio(self, index: int) -> np.ndarray:
        """(L, D) frames of one sample."""
        return self._samples[index].audio

    def vision(self, index: int) -> np.ndarray:
        """(L, D) frames of one sample."""
        return self._samples[index].vision
