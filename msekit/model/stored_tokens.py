"""Hidden states of the frozen LLM for every token of texts, on disk: made once, shared by all who read the same layer.

`<cache root>/states/<key>/` has parts of `PART` texts, each a .npy of (tokens, d) float16: a state over its own root
mean square, since states of some LLMs are beyond float16's range and whoever reads them norms them anyway. It is built
in a folder beside it under a lock, and renamed into place; parts that a stopped build wrote whole are kept. Checksums
are compared whenever states are opened.

Shapes: B batch, T tokens of the longest text, d width.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import StatesWanted, precision_of, token_states
from msekit.data.cache.states import PART
from msekit.data.cache.write_split import crc32
from msekit.errors import MsekitError
from msekit.model.text_states import different_texts
from msekit.paths import cache_root
from msekit.reporter import Reporter

TOKENS_FORMAT = 1
"""Raised whenever the files' layout or meaning changes; part of the key."""


class TokenTable:
    """The stored states of a split's texts, memory-mapped.

    Args:
        parts: (tokens, d) of each part.
        lengths: Tokens of each different text.
        places: (N,) which of them each text is.
    """

    def __init__(self, parts: list[np.ndarray], lengths: np.ndarray, places: np.ndarray) -> None:
        self._parts, self._lengths, self._places = parts, lengths, places
        self._starts = np.concatenate(
            [np.cumsum(lengths[at : at + PART]) - lengths[at : at + PART] for at in range(0, len(lengths), PART)]
        )

    @property
    def width(self) -> int:
        """d."""
        return self._parts[0].shape[1]

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """States of the texts at these positions: (B, T, d) float32, zero beyond a text's end; T is 1 at least."""
        places = self._places[np.asarray(indices, dtype=np.int64)]
        states = torch.zeros(len(places), max(1, int(self._lengths[places].max())), self.width)
        for row, place in enumerate(places.tolist()):
            length, start = int(self._lengths[place]), int(self._starts[place])
            own = self._parts[place // PART][start : start + length]
            states[row, :length] = torch.from_numpy(own.astype(np.float32))
        return states


def token_table(
    backbone: Backbone, texts: Sequence[Sequence[int]], layer: int, reporter: Reporter, root: Path | None = None
) -> TokenTable:
    """Open the states of texts; make those that are not in the cache.

    Args:
        backbone: The frozen LLM.
        texts: Tokens of each, without special tokens, cut to the limit.
        layer: Which layer's output; 0 for what the first layer reads.
        reporter: Where progress goes.
        root: Cache root; None for the user's.

    Raises:
        MsekitError: No such layer, states that are not finite, or a cache that cannot be written.
    """
    different, places = different_texts(texts, None)
    own = [tokens for tokens, _ in different]
    decides = (TOKENS_FORMAT, PART, backbone.fingerprint, precision_of(backbone), layer, backbone.bos, own)
    key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]
    folder = (root or cache_root()) / "states" / key
    lengths = np.array([len(tokens) for tokens in own])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{key}.lock"):
            parts = _opened(folder, len(own))
            if parts is None:
                _build(folder, backbone, own, layer, reporter)
                parts = _opened(folder, len(own))
    except OSError as error:
        raise MsekitError(
            f"the cache of hidden states cannot be written: {error}",
            where=folder,
            fix="Free some space there, or set MSEKIT_CACHE to a folder that can be written",
        ) from error
    if parts is None:
        raise MsekitError("hidden states that were just written are damaged", where=folder)
    return TokenTable(parts, lengths, places)


def _whole(folder: Path, part: int) -> Path | None:
    """A part's file, if it is there as it was written."""
    found = list(folder.glob(f"part-{part:05d}-*.npy"))
    return found[0] if len(found) == 1 and found[0].name.endswith(f"-{crc32(found[0]):08x}.npy") else None


def _opened(folder: Path, texts: int) -> list[np.ndarray] | None:
    files = [_whole(folder, part) for part in range(-(-texts // PART))]
    if not files or None in files:
        return None
    return [np.load(file, mmap_mode="r", allow_pickle=False) for file in files if file is not None]


def _build(folder: Path, backbone: Backbone, texts: list[tuple[int, ...]], layer: int, reporter: Reporter) -> None:
    """Make what is missing; the caller has the lock."""
    building = folder.parent / f".{folder.name}.build"
    if folder.exists():  # damaged: what is whole of it is used again
        shutil.rmtree(building, ignore_errors=True)
        folder.rename(building)
    building.mkdir(exist_ok=True)
    wanted = StatesWanted((layer,))
    with reporter.bar(f"states of the tokens of {len(texts)} texts", len(texts)) as advance:
        for part in range(-(-len(texts) // PART)):
            some = texts[part * PART : (part + 1) * PART]
            if _whole(building, part) is None:
                for damaged in building.glob(f"part-{part:05d}-*"):
                    damaged.unlink()
                states = torch.cat([rows[:, 0] for rows in token_states(backbone, some, None, wanted)])
                states = states / states.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
                _write(building, part, states.to(torch.float16).numpy())
            advance(len(some))
    building.rename(folder)


def _write(building: Path, part: int, states: np.ndarray) -> None:
    """Write a part, at once or not at all."""
    file = building / f"new-{part:05d}.npy"
    with file.open("wb") as stream:
        np.save(stream, states, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    file.rename(building / f"part-{part:05d}-{crc32(file):08x}.npy")
