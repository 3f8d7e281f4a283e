"""Hidden states of the frozen LLM for a split's texts, read from the cache.

`states_table` makes each different text's states once and stores them (`data/cache/states.py`) under a key of all that
decides them: the LLM's weights, its precision, layers, cue, and the texts themselves in tokens. So all who read the
same layers share them. `FreshStates` (`text_states.py`) makes the same for the texts of a prediction.

Processes of one run share the work. Where weights lie in shards, a pass is a collective operation, so every process
takes as many passes as the others, with a text of no use where it has none left.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import (
    StatesWanted,
    batches_by_length,
    computes_in_fp32,
    precision_of,
    read_batch,
)
from msekit.data.cache.states import PART, STATES_FORMAT, StatesFolder, StoredStates
from msekit.errors import MsekitError
from msekit.model.text_states import Text, apart, different_texts
from msekit.paths import cache_root
from msekit.reporter import Reporter
from msekit.words import reason

_PAUSE_S = 1.0


class StatesTable:
    """The stored states of a split's texts, memory-mapped.

    Args:
        stored: States of the different texts.
        places: (N,) which of them each text is.
    """

    def __init__(self, stored: StoredStates, places: np.ndarray) -> None:
        self._stored, self._places = stored, places

    @property
    def width(self) -> int:
        """d."""
        return self._stored.info.width

    def __len__(self) -> int:
        return len(self._places)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """States of the texts at these positions: (B, L, 2, d) float32."""
        return torch.from_numpy(self._stored.rows(self._places[np.asarray(indices, dtype=np.int64)]))


def states_table(
    backbone: Backbone,
    texts: Sequence[Sequence[int]],
    contexts: Sequence[int] | np.ndarray | None,
    wanted: StatesWanted,
    reporter: Reporter,
    root: Path | None = None,
    heed: Callable[[], None] = lambda: None,
) -> StatesTable:
    """Open the states of texts; make those that are not in the cache. Every process of a run must call it.

    Args:
        backbone: The frozen LLM.
        texts: Tokens of each, without special tokens, cut to the limit.
        contexts: How many of each text's first tokens are earlier utterances; None for none.
        wanted: Layers and cue.
        reporter: Where progress goes.
        root: Cache root; None for the user's.
        heed: Called by every process of the run between parts of 256 texts; it raises where the build is to stop.

    Raises:
        MsekitError: No such layer, states that are not finite, or a cache that cannot be written.
    """
    different, places = different_texts(texts, contexts)
    exact = computes_in_fp32(backbone)
    folder = StatesFolder((root or cache_root()) / "states", _key(backbone, different, wanted), len(different), exact)
    try:
        stored = folder.open()
        while not all(_from_all(stored is not None)):
            wrote = _build(backbone, different, wanted, folder, reporter, heed)
            stored = folder.open()
            if wrote and stored is None:
                raise MsekitError("hidden states that were just written are damaged", where=folder.path)
            if stored is None:  # another run builds them on this machine
                time.sleep(_PAUSE_S)
    except OSError as error:
        raise MsekitError(
            f"the cache of hidden states cannot be written: {reason(error)}",
            where=folder.path,
            fix="Free some space there, or set MSEKIT_CACHE to a folder that can be written",
        ) from error
    assert stored is not None
    return StatesTable(stored, places)


def _key(backbone: Backbone, texts: list[Text], wanted: StatesWanted) -> str:
    """Everything that decides the states, in 32 hex digits."""
    decides: dict[str, Any] = {
        "format": STATES_FORMAT,
        "part": PART,
        "backbone": backbone.fingerprint,
        "precision": precision_of(backbone),
        "layers": wanted.layers,
        "cue": wanted.cue,
        "bos": backbone.bos,
        "texts": texts,
    }
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]


def _build(
    backbone: Backbone,
    texts: list[Text],
    wanted: StatesWanted,
    folder: StatesFolder,
    reporter: Reporter,
    heed: Callable[[], None],
) -> bool:
    """Make what is missing; one process of a machine writes it, or of several that share the folder.

    Returns:
        Whether this process wrote.
    """
    rank, world = _rank_and_world()
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with ExitStack() as until_written:
        # another run may have built them meanwhile
        writes = _may_write(folder, rank, until_written) and folder.open() is None
        lacks = folder.begin() if writes else []
        missing = sorted({part for parts in _from_all(lacks) for part in parts})
        done = len(texts) - sum(len(_part(texts, part)) for part in missing)
        with reporter.bar(f"hidden states of {len(texts)} texts", len(texts), done) as advance:
            for start in range(0, len(missing), world):
                heed()
                group = missing[start : start + world]
                own = group[rank] if rank < len(group) else None
                passes = max(len(batches_by_length(apart(_part(texts, part))[0], wanted)) for part in group)
                states = _read_part(backbone, [] if own is None else _part(texts, own), wanted, passes)
                for part, values in zip(group, _from_all(states), strict=False):
                    if part in lacks:
                        folder.write(part, values)
                advance(sum(len(_part(texts, part)) for part in group))
        if writes:
            folder.finish(backbone.name, precision_of(backbone), wanted.layers)
    _from_all(None)
    if missing:
        reporter.note(f"hidden states of {len(texts)} different texts: {time.perf_counter() - started:.0f} s")
    return writes


def _may_write(folder: StatesFolder, rank: int, until_written: ExitStack) -> bool:
    """Whether this process has the folder's lock, until it is written.

    The first process of the run waits for it. Then the first of each other machine takes it if it is free: it is not
    where machines share the folder, and nobody may wait for another process of the same run.
    """
    if rank == 0:
        until_written.enter_context(folder.lock)
    _from_all(None)
    if rank == 0 or int(os.environ.get("LOCAL_RANK", "0")):
        return rank == 0
    try:
        until_written.enter_context(folder.lock.acquire(timeout=0))
    except Timeout:
        return False
    return True


def _part(texts: list[Text], part: int) -> list[Text]:
    return texts[part * PART : (part + 1) * PART]


def _read_part(backbone: Backbone, texts: list[Text], wanted: StatesWanted, passes: int) -> np.ndarray:
    """States of a part's texts (n, L, 2, d), in exactly so many passes."""
    ids, contexts = apart(texts)
    batches = batches_by_length(ids, wanted)
    rows: list[Any] = [None] * len(texts)
    for number in range(passes):
        if number >= len(batches):  # of no use but to the other processes
            read_batch(backbone, [()], None, wanted)
            continue
        batch = batches[number]
        states = read_batch(backbone, [ids[place] for place in batch], [contexts[place] for place in batch], wanted)
        for place, state in zip(batch, states.numpy(), strict=True):
            rows[place] = state
    return np.stack(rows) if rows else np.empty(0, np.float32)


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _from_all(value: Any) -> list[Any]:
    """What every process of the run says, by rank; they wait for one another."""
    _, world = _rank_and_world()
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    torch.distributed.all_gather_object(values, value)
    return values
