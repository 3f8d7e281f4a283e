"""A small twin of an LLM: its architecture with few narrow layers and random weights in fp32, to try shorter ways on.

What an architecture computes stands in its code and its configuration, not in its weights. So a way is right or wrong
on the twin as on the LLM; but on the twin it is decided in milliseconds, on a CPU in fp32, where a mistake of a
thousandth part is no rounding, however large the LLM is and however it is held.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from msekit.backbones.passes.agree import decoder_layers, said

_VOCABULARY, _INNER, _EXPERTS, _LAYERS = 64, 48, 8, 2
_INNER_KEYS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "n_inner", "ffn_dim")
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")
WINDOW_KEYS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size")
"""Where configurations keep how far back some layers see."""
_WINDOW = 7
"""Columns that layers with a window see of a trial: the last columns of it see a part of what is in front."""
_MOST = 50_000_000
"""Parameters of a twin whose figures do not let it be made narrow."""


class NoTwinError(Exception):
    """An architecture of which no twin can be made, with the reason."""


def small_twin(model: nn.Module) -> nn.Module:
    """Make a model's twin.

    Args:
        model: A transformers model.

    Raises:
        NoTwinError: Its configuration does not let it be made smaller, or its layers are not those that it describes.
    """
    kinds = [tuple(_parts(layer)) for layer in decoder_layers(model)]
    try:
        twin = _built(type(model), _narrow(_shallow(model.config, kinds)))
    except Exception:  # whatever figures that do not go together make an architecture raise
        try:
            twin = _built(type(model), _shallow(model.config, kinds))
        except Exception as error:
            raise NoTwinError(f"no small twin of {type(model).__name__} can be made ({said(error)})") from error
    if other := _unlike(kinds, twin):
        raise NoTwinError(other)
    return twin


def _shallow(config: Any, kinds: list[Any]) -> Any:
    """A configuration with few tokens and few layers; of every kind, by their parts or by the configuration, one."""
    small = copy.deepcopy(config)
    text = small.get_text_config(decoder=True)
    depth = text.num_hidden_layers
    types = getattr(text, "layer_types", None)
    kinds = list(zip(kinds, types, strict=False)) if types and kinds else types or kinds
    fewest = (count for count in range(min(_LAYERS, depth), depth + 1) if set(kinds[:count]) == set(kinds))
    layers = next(count for count in fewest if not kinds or kinds[count - 1] == kinds[-1])  # the last of its kind too
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == depth:  # a figure for every layer
            setattr(text, name, value[:layers])
    text.num_hidden_layers, text.vocab_size = layers, min(text.vocab_size, _VOCABULARY)
    text.pad_token_id = 0 if text.pad_token_id is not None else None
    for key in WINDOW_KEYS:
        if isinstance(getattr(text, key, None), int):
            setattr(text, key, min(getattr(text, key), _WINDOW))
    return small


def _narrow(config: Any) -> Any:
    """The same with few heads, as wide as they were, and narrow MLPs."""
    text = config.get_text_config(decoder=True)
    heads, groups = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    few = 1 if groups == 1 else 2
    text.num_attention_heads = few if groups in (None, heads) else 2 * few
    if groups is not None:
        text.num_key_value_heads = few
    text.hidden_size = text.num_attention_heads * width
    for keys, most in ((_INNER_KEYS, _INNER), (_EXPERT_KEYS, _EXPERTS)):
        for key in keys:
            if isinstance(getattr(text, key, None), int):
                setattr(text, key, min(getattr(text, key), most))
    return config


def _built(kind: type[nn.Module], config: Any) -> nn.Module:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in kind(config).parameters())
    if parameters > _MOST:
        raise ValueError(f"its figures make it {parameters:,} parameters large")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        twin = kind(config).float().requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in twin.named_parameters():
        if parameter.ndim > 1:  # strong enough that every part shows in the logits
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1, generator=generator)
        else:
            parameter.uniform_(0.5, 1.5, generator=generator)
    return twin


def _unlike(kinds: list[tuple[tuple[str, str], ...]], twin: nn.Module) -> str | None:
    """In what a model's layers are not those of its twin: someone may have put another part in."""
    built = {tuple(_parts(layer)) for layer in decoder_layers(twin)}
    for number, own in enumerate(kinds):
        if own in built:
            continue
        theirs = dict(max(built, key=lambda parts: len(set(parts) & set(own))))
        odd = next(
            (f"{name or 'itself'} is a {kind}" for name, kind in own if theirs.get(name) != kind), "a part lacks"
        )
        return f"layer {number} is not what its configuration says: {odd}"
    return None


def _parts(layer: nn.Module) -> list[tuple[str, str]]:
    """Names and kinds of a layer's modules; linear layers of any precision are one kind."""
    return [
        (name, "Linear" if isinstance(part, nn.Linear) else f"{type(part).__module__}.{type(part).__qualname__}")
        for name, part in layer.named_modules()
    ]
