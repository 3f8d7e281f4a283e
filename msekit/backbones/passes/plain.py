"""A model's pass as transformers computes it, under masks that mean to every kind of layer what they say.

Layers that see no further back than a window, or no further than their chunk, get masks of their own. transformers
makes them from a mask of columns, as far as columns are as far apart as positions; where they are not, behind a prefix
with padding and on the branches of a label trie, they are made here, by positions.

Shapes: B batch, S columns, P columns of a prefix, T = P + S.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from msekit.backbones.passes.prefix import cache_argument
from msekit.backbones.sequence import Pass, Sequence

Within = Callable[[Tensor, Tensor], Tensor]
"""Positions of queries and of keys → bool, which of the keys a kind of layer sees of those in front."""


def plain_pass(model: Any) -> Pass:
    """A model's pass as transformers computes it."""
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    cache = cache_argument(model)
    windows = windows_of(model.config)

    def run(sequence: Sequence) -> Tensor:
        options: dict[str, Any] = {"logits_to_keep": sequence.answers} if keeps else {}
        if sequence.prefix is not None:
            assert cache is not None
            options[cache] = sequence.prefix
        logits = model(
            inputs_embeds=sequence.embeddings,
            attention_mask=masks_for(windows, sequence) if windows else sequence.mask,
            position_ids=sequence.positions,
            use_cache=False,
            **options,
        ).logits
        return logits[:, -sequence.answers :]

    return run


def windows_of(config: Any) -> dict[str, Within | None]:
    """What each kind of layer sees by a configuration, None for all that is in front.

    Under the name of the kind, or under "" where layers have no kinds; empty where no layer has a window.
    """
    text = config.get_text_config(decoder=True)
    window, chunk = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    sees: dict[str, Within | None] = {}
    if window:
        sees["sliding_attention"] = partial(_within_window, window)
    if chunk:
        sees["chunked_attention"] = partial(_within_chunk, chunk)
    if kinds := set(getattr(text, "layer_types", None) or ()):
        return {kind: sees.get(kind) for kind in sorted(kinds)} if kinds & set(sees) else {}
    return {"": next(iter(sees.values()))} if sees else {}


def _within_window(window: int, query: Tensor, key: Tensor) -> Tensor:
    return query - key < window


def _within_chunk(chunk: int, query: Tensor, key: Tensor) -> Tensor:
    return query // chunk == key // chunk


def masks_for(windows: dict[str, Within | None], sequence: Sequence) -> Tensor | dict[str, Tensor]:
    """The mask that a model with windows is given: one for each kind of layer, or one where there are no kinds."""
    if sequence.mask.ndim == 2 and sequence.prefix is None:
        return sequence.mask
    whole_B1ST = sequence.with_scores_mask().mask
    size, columns = sequence.positions.shape
    read = whole_B1ST.shape[-1] - columns
    read_BP = torch.arange(read, device=sequence.positions.device).expand(size, -1)
    key_B11T = torch.cat([read_BP, sequence.positions], dim=1)[:, None, None, :]
    query_B1S1 = sequence.positions[:, None, :, None]
    least = torch.finfo(whole_B1ST.dtype).min
    masks = {
        kind: whole_B1ST if within is None else whole_B1ST.masked_fill(~within(query_B1S1, key_B11T), least)
        for kind, within in windows.items()
    }
    return masks.get("", masks)
