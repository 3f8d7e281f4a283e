"""Writes feature files in the published layouts and shapes, as either generation of numpy pickles them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.catalogue import SPLITS, DatasetSpec

PADDED = {
    "mosei": (500, 375),
    "mosi": (50, 50),
    "sims": (400, 55),
    "sims-v2": (925, 232),
    "meld": (157, 32),
    "cherma": (543, 16),
    "iemocap": (157, 32),
}
"""Frames that the published files are padded to: audio, vision."""


def dumps(value: object, generation: int, protocol: int = 4) -> bytes:
    """A pickle as numpy 1 or numpy 2 writes it: `numpy.core` or `numpy._core`."""
    buffer = io.BytesIO()
    writer = pickle._Pickler(buffer, protocol)
    writer.framer.start_framing = lambda: None  # names of another length change no frame
    writer.dump(value)
    data = buffer.getvalue()
    for part in (b"multiarray", b"numeric"):
        old, new = b"numpy.core." + part, b"numpy._core." + part
        before, after = (new, old) if generation == 1 else (old, new)
        data = data.replace(b"c" + before + b"\n", b"c" + after + b"\n")
        data = data.replace(b"\x8c" + bytes([len(before)]) + before, b"\x8c" + bytes([len(after)]) + after)
    return data


def write(folder: Path, spec: DatasetSpec, generation: int = 2, sizes: tuple[int, ...] = (4, 2, 3)) -> None:
    """A data set of few samples at a catalogue entry's widths, in its layout, under its file names."""
    for split, size in zip(SPLITS, sizes, strict=True):
        rng = np.random.default_rng([len(spec.name), size])
        audio, vision = (
            rng.normal(size=(size, frames, width)).astype(np.float32)
            for frames, width in zip(PADDED[spec.name], (spec.audio_width or 1, spec.vision_width or 1), strict=True)
        )
        lengths = [rng.integers(1, frames + 1, size) for frames in PADDED[spec.name]]
        texts = [f"{split} 文 {number}" for number in range(size)]
        if spec.layout == "erc-pickle":
            rows = [
                {
                    "features": {
                        "text": texts[i],
                        "audio": audio[i],
                        "video": vision[i],
                        "audio_len": int(lengths[0][i]),
                        "video_len": int(lengths[1][i]),
                    },
                    "label": (spec.labels or ())[i % len(spec.labels or ())],
                }
                for i in range(size)
            ]
            (folder / f"{spec.files}_{split}.pkl").write_bytes(dumps(rows, generation))
    if spec.layout == "msa-pickle":
        content = {split: msa_columns(spec, size, split) for split, size in zip(SPLITS, sizes, strict=True)}
        (folder / str(spec.files)).write_bytes(dumps(content, generation))


def msa_columns(spec: DatasetSpec, size: int, split: str) -> dict[str, Any]:
    """One split of an intensity set, with the keys that are there and not used."""
    rng = np.random.default_rng([len(spec.name), len(split)])
    low, high = spec.range or (-1.0, 1.0)
    audio, vision = (
        rng.normal(size=(size, frames, width))
        for frames, width in zip(PADDED[spec.name], (spec.audio_width or 1, spec.vision_width or 1), strict=True)
    )
    labels = rng.uniform(low, high, size)
    return {
        "raw_text": np.array([f"{split} 文 {number}" for number in range(size)]),
        "audio": audio,
        "vision": vision.astype(np.float32),
        "audio_lengths": rng.integers(1, audio.shape[1] + 1, size).tolist(),
        "vision_lengths": rng.integers(1, vision.shape[1] + 1, size).tolist(),
        "id": [f"video$_${number}" for number in range(size)],
        "regression_labels": labels,
        "regression_labels_T": labels,
        "annotations": ["Positive"] * size,
        "text_bert": np.zeros((size, 3, 50), np.float32),
    }
