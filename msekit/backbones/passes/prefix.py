"""What every sequence begins with, read by the backbone once: its keys and values, reused by every step.

The first tokens of a sequence see nothing but one another, so their keys and values are the same for every sample,
in training as in evaluation, and no gradient needs to pass through them.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

BY_LENGTH = {"dynamic", "longrope"}
"""Rotary positions whose frequencies change with the length: keys read before would have others."""


STATES = {"linear_attention", "conv", "mamba", "mamba2", "recurrent", "hybrid", "hybrid_sliding"}
"""Kinds of layers, as configurations name them, that keep a state of what they read instead of keys and values."""


class PrefixLayer(DynamicLayer):
    """One layer's keys and values. Reading them leaves them as they are, so that recomputed layers may read again.

    Args:
        keys: (1, heads, prefix, width of a head).
        values: Likewise.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The prefix in front of a batch's own keys and values."""
        size = len(key_states)
        return (
            torch.cat([self.keys.expand(size, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(size, -1, -1, -1), value_states], dim=-2),
        )


def cache_argument(model: nn.Module) -> str | None:
    """transformers' name for keys and values that were read before: `cache` from 5.24 on; None where there is none."""
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def obstacle(model: Any) -> str | None:
    """Why a model cannot take a prefix, as far as its structure tells."""
    if cache_argument(model) is None:
        return f"{type(model).__name__} takes no keys and values that were read before"
    if state := state_of(model):
        return f"{state} instead of keys and values"
    if (kinds := _rotations(model.config)) & BY_LENGTH:
        return f"its rotations ({', '.join(sorted(kinds & BY_LENGTH))}) depend on the length of the whole sequence"
    return None


def state_of(model: Any) -> str | None:
    """That a model's layers, or some of them, keep a state of what they read, which no mask reaches."""
    text = model.config.get_text_config(decoder=True)
    if kinds := STATES & set(getattr(text, "layer_types", None) or ()):
        return f"{type(model).__name__} has layers ({', '.join(sorted(kinds))}) that keep a state"
    return f"{type(model).__name__} keeps a state" if getattr(model, "_is_stateful", False) else None


def _rotations(config: Any) -> set[str]:
    """The kinds of rotary positions that a configuration names, of all its layers."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    by_layer = [value for value in parameters.values() if isinstance(value, dict)]
    return {str(each.get("rope_type", each.get("type"))) for each in (parameters, *by_layer)}


def read_prefix(model: nn.Module, embedded_1Pd: Tensor) -> Cache:
    """Let a model without an obstacle read a prefix (1, P, d): the cache to put in front of every batch."""
    name = cache_argument(model)
    assert name is not None
    cache = DynamicCache()
    with torch.inference_mode(False), torch.no_grad():
        model(inputs_embeds=embedded_1Pd.clone(), use_cache=True, **{name: cache})
        return Cache(layers=[PrefixLayer(layer.keys, layer.values) for layer in cache.layers])
