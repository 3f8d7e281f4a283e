"""Samples handed over for prediction: checked one by one, then read by the same Collator that training uses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.catalogue import MODALITIES
from msekit.errors import MsekitError
from msekit.inference.given_features import frames_of
from msekit.runs.description import Description

LONGEST_TEXT = 100_000
"""Characters; an utterance is expected, and what exceeds the plug-in's limit of tokens is cut anyway."""
LONGEST_HISTORY = 1000
"""Utterances of a dialogue; a plug-in reads the last few."""


Utterance = tuple[str | None, str]
"""Who said it, where that is known, and what."""


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
    history: tuple[Utterance, ...] = ()
    """What was said before it in its dialogue, the oldest first; no more than the plug-in reads."""
    speaker: str | None = None
    """Its own, where the plug-in reads history."""

    @property
    def bytes(self) -> int:
        """Of its features."""
        return self.audio.nbytes + self.vision.nbytes


def prepare_sample(
    description: Description,
    id: str,
    text: Any,
    features: dict[str, Any],
    where: object = None,
    *,
    history: Any = None,
    speaker: Any = None,
) -> Prepared:
    """Check one sample.

    Args:
        description: Of the plug-in.
        id: Its name.
        text: What was said.
        features: `audio` and `vision`: see `frames_of`; None or no key for a modality that is missing.
        where: What an error message names.
        history: Earlier utterances of its dialogue, the oldest first: pairs of speaker (or None) and text, objects
            with `speaker` and `text`, or texts alone; None for none.
        speaker: Who says the text; None where that is not known.

    Raises:
        MsekitError: The text, the history or a modality cannot be used.
    """
    start = time.perf_counter()
    text = _checked_text(text, "text", where)
    notes, frames = [], {}
    said = history_of(history, where)
    speaker = _name(speaker, "speaker", where)
    if said and not description.context:
        notes.append("this plug-in reads no history: it was left out")
    elif len(said) > description.context:
        notes.append(f"this plug-in reads {description.context} earlier utterances: older ones were left out")
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
    said = said[-description.context :] if description.context else ()
    return Prepared(
        id,
        text,
        frames["audio"],
        frames["vision"],
        tuple(notes),
        time.perf_counter() - start,
        said,
        speaker if description.context else None,
    )


def history_of(value: Any, where: object = None) -> tuple[Utterance, ...]:
    """Read earlier utterances: see `prepare_sample`.

    Raises:
        MsekitError: They are something else.
    """
    if value is None:
        return ()
    if isinstance(value, (str, dict)) or not isinstance(value, Sequence):
        raise MsekitError(f"'history' is a {type(value).__name__}, not a list of utterances", where=where)
    if len(value) > LONGEST_HISTORY:
        raise MsekitError(f"'history' has {len(value)} utterances, more than {LONGEST_HISTORY}", where=where)
    said: list[Utterance] = []
    for place, item in enumerate(value):
        if isinstance(item, dict) and "text" in item and item.keys() <= {"speaker", "text"}:
            item = (item.get("speaker"), item["text"])
        pair = (None, item) if isinstance(item, str) else item
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise MsekitError(
                f"utterance {place} of 'history' is no pair of speaker and text", where=where, fix='["Ross", "I did."]'
            )
        speaker, text = pair
        said.append((_name(speaker, "history", where), _checked_text(text, "history", where)))
    return tuple(said)


def _name(value: Any, key: str, where: object) -> str | None:
    """Who speaks, a text or a number as data sets have it; None where that is not known."""
    if value is None or value == "":
        return None
    return str(value) if type(value) is int else _checked_text(value, key, where)


def utterance_of(line: str) -> Utterance:
    """`Ross: I did.` → its speaker and its text."""
    speaker, colon, text = line.partition(": ")
    return (speaker.strip(), text) if colon and speaker.strip() else (None, line)


def _checked_text(value: Any, name: str, where: object) -> str:
    if not isinstance(value, str):
        raise MsekitError(f"'{name}' is a {type(value).__name__}, not a text", where=where)
    if len(value) > LONGEST_TEXT:
        raise MsekitError(f"'{name}' has {len(value)} characters, more than {LONGEST_TEXT}", where=where)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MsekitError(f"'{name}' is not valid text: {error.reason}", where=where) from error
    return value


def column_of(values: Any, size: int, key: str) -> list[Any]:
    """One modality, or whatever else, of many samples.

    Raises:
        MsekitError: Not one value for each.
    """
    if values is None:
        return [None] * size
    if isinstance(values, (str, Path)) or len(values) != size:
        count = "one value" if isinstance(values, (str, Path)) else f"{len(values)} values"
        raise MsekitError(f"{count} of {key} for {size} texts", fix="Give a list of the same length, or None.")
    return list(values)


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
