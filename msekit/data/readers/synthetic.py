"""Data sets whose right answers are known by construction: text alone is ambiguous, audio and vision decide.

`synthetic-erc`: four classes, class = 2·a + v, where only the audio tells bit a and only the vision tells bit v.
`synthetic-msa`: intensity y = a + v, with a told by the audio and v by the vision, each one of four values.
`synthetic-targets`: a and v as there, and three targets: the intensity; four classes, of which the audio tells whether
a is positive and the vision whether v is; and four labels, of which a tells two and v two, each as often yes as no
whatever the others are.
Every split holds every (text, a, v) equally often, so the best score of any predictor that misses a modality is
exact: see `ceiling`. A model that beats it cheats; one that stays at the text-only ceiling is deaf and blind.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.readers.rows import ReadRow, Row, Unread
from msekit.errors import MsekitError, nearest

VERSION = 1
"""Raised whenever the generated rows change; part of the caches' fingerprint."""

SIZES = {"train": 960, "valid": 160, "test": 320}
AUDIO_WIDTH, VISION_WIDTH = 16, 8
AUDIO_FRAMES, VISION_FRAMES = (8, 24), (4, 12)
"""Shortest and longest sequence, both included."""

INTENSITIES = (-1.5, -0.5, 0.5, 1.5)
"""The values of a and v in `synthetic-msa`."""

TEXTS = (
    "Well, that is what happened.",
    "I did not expect to see you here.",
    "So you are leaving tomorrow.",
    "They told me about it this morning.",
    "That was quite a day.",
    "You really did it this time.",
    "And then she just said yes.",
    "I have no words for this.",
    "We can talk about it later.",
    "Look at what you have done.",
)

_SIGNAL_CHANNELS = 4
_AMPLITUDE = 2.0
_VALUES = {"synthetic-erc": 2, "synthetic-msa": 4, "synthetic-targets": 4}
"""How many values each of a and v can take."""


def _check(name: str) -> int:
    if name not in _VALUES:
        raise MsekitError(f"unknown synthetic data set '{name}'", fix=nearest(name, _VALUES))
    return _VALUES[name]


def _sequence(rng: np.random.Generator, value: int, frames: tuple[int, int], width: int) -> np.ndarray:
    """[L, D] float32: noise, and on the first channels nothing but a run of `_AMPLITUDE` on channel `value`."""
    length = int(rng.integers(frames[0], frames[1] + 1))
    x_LD = rng.standard_normal((length, width), dtype=np.float32)
    x_LD[:, :_SIGNAL_CHANNELS] = 0.0
    run = int(rng.integers((length + 1) // 2, length + 1))
    start = int(rng.integers(0, length - run + 1))
    x_LD[start : start + run, value] = _AMPLITUDE
    return x_LD


def synthetic_rows(name: str, split: str) -> Iterator[Row]:
    """The rows of a split, the same on every call and machine, in shuffled order.

    Args:
        name: `synthetic-erc`, `synthetic-msa` or `synthetic-targets`.
        split: `train`, `valid` or `test`.

    Returns:
        Rows with audio [8–24, 16] and vision [4–12, 8].

    Raises:
        MsekitError: No such data set or split.
    """
    values = _check(name)
    if split not in SIZES:
        raise MsekitError(f"no such split '{split}'", where=name, fix=nearest(split, SIZES))
    return _rows(name, split, values)


def _rows(name: str, split: str, values: int) -> Iterator[Row]:
    rng = np.random.default_rng([zlib.crc32(name.encode()), SPLITS.index(split)])
    cells = list(itertools.product(TEXTS, range(values), range(values)))
    order = rng.permutation(SIZES[split])
    for number, place in enumerate(order):
        text, a, v = cells[int(place) % len(cells)]
        yield Row(
            id=f"{split}-{number:06d}",
            text=text,
            label=_label(name, a, v),
            audio=_sequence(rng, a, AUDIO_FRAMES, AUDIO_WIDTH),
            vision=_sequence(rng, v, VISION_FRAMES, VISION_WIDTH),
            speaker=None,
            dialogue_id=None,
        )


def _label(name: str, a: int, v: int) -> float | tuple[float, ...]:
    if name == "synthetic-erc":
        return float(2 * a + v)
    intensity = INTENSITIES[a] + INTENSITIES[v]
    if name == "synthetic-msa":
        return intensity
    bits = (a // 2, a % 2, v // 2, v % 2)
    return (float(2 * bits[0] + bits[2]), *map(float, bits), intensity)


class SyntheticSet:
    """A generated data set as a source of rows. It has no files."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.source_files: list[Path] = []

    @property
    def bystanders(self) -> list[Path]:
        """None."""
        return []

    def unread(self) -> Unread:
        """Nothing."""
        return Unread()

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of one split."""
        return synthetic_rows(self.spec.name, split)

    def readers(self, split: str) -> Iterator[ReadRow]:
        """One reader per row of a split; none of them can fail."""
        for row in self.rows(split):
            yield partial(_same, row)


def _same(row: Row) -> Row:
    return row


def decode_audio(audio: np.ndarray) -> int:
    """Which value the audio carries: bit a of `synthetic-erc`, the index into INTENSITIES of `synthetic-msa`."""
    return int(audio[:, :_SIGNAL_CHANNELS].sum(axis=0).argmax())


def decode_vision(vision: np.ndarray) -> int:
    """Which value the vision carries: bit v of `synthetic-erc`, the index into INTENSITIES of `synthetic-msa`."""
    return int(vision[:, :_SIGNAL_CHANNELS].sum(axis=0).argmax())


def ceiling(name: str) -> dict[str, dict[str, float | None]]:
    """The best scores that are possible with all modalities and with some missing, in every split.

    Args:
        name: `synthetic-erc`, `synthetic-msa` or `synthetic-targets`.

    Returns:
        For `full`, `no-audio`, `no-vision` and `text-only`: `acc` (erc), or `mae` and `corr` (msa; None where the
        best prediction is a constant, which correlates with nothing), or one of these of every target.

    Raises:
        MsekitError: No such data set.
    """
    _check(name)
    if name == "synthetic-erc":
        return {"full": {"acc": 1.0}, "no-audio": {"acc": 0.5}, "no-vision": {"acc": 0.5}, "text-only": {"acc": 0.25}}
    # y = a + v, two independent terms of equal variance. A model that reads one of them predicts it and misses by the
    # other: MAE E|a| = 1, correlation sqrt(1/2). A model that reads neither predicts 0: MAE E|a + v| = 1.25.
    if (
        name == "synthetic-targets"
    ):  # of four labels each modality tells two; of the others a guess is right half the time
        keys, one = ("emotion:acc", "signs:label_acc", "valence:mae"), (0.5, 0.75, 1.0)
        best = {"full": (1.0, 1.0, 0.0), "no-audio": one, "no-vision": one, "text-only": (0.25, 0.5, 1.25)}
        return {which: dict(zip(keys, values, strict=True)) for which, values in best.items()}
    half: dict[str, float | None] = {"mae": 1.0, "corr": math.sqrt(0.5)}
    return {
        "full": {"mae": 0.0, "corr": 1.0},
        "no-audio": dict(half),
        "no-vision": dict(half),
        "text-only": {"mae": 1.25, "corr": None},
    }
