"""The layers of a frozen LLM on a GPU, their norms, residuals, rotary positions and gated activations by own kernels.

Of the layer that Llama, Qwen 2, Mistral and many more share. Beside its products and attention it takes 5 launches
where transformers takes 30, each a pass over memory, and 10 back for 52 (counted on a CPU). Products, attention and
caches stay transformers' own, so that weights may be held in 8 or 4 bit. Values and gradients are those of transformers
up to rounding. No GPU has measured it: the way is taken where `model.passes` names it alone.

Shapes: B batch, S columns, d width of the model.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

CLASSES: tuple[str, ...] = ("LlamaDecoderLayer", "Qwen2DecoderLayer", "MistralDecoderLayer")
"""Layers of transformers that are this one."""
_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ARGUMENTS = {"attention_mask", "cache", "past_key_values", "position_embeddings"}
"""What transformers gives a layer beside its input, as far as it is read here."""
_UNREAD = {"self", "hidden_states", "position_ids", "use_cache", "cache_position", "kwargs"}
"""What it may give besides: the input itself, and what is in the other arguments already."""


Forward = Callable[..., Any]


def obstacle(model: Any, layers: Sequence[nn.Module]) -> str | None:
    """Why a model's decoder layers cannot be computed so, as far as machine and structure tell."""
    if not find_spec("triton"):
        return "Triton, which CUDA's builds of torch bring along, is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and any(weight.device.type != "cuda" for weight in model.parameters()):
        return "its kernels are for a GPU"
    if not layers:
        return "the architecture does not mark its decoder layers"
    if reason := next(filter(None, map(_unlike, layers)), None):
        return reason
    if any(hasattr(weight, "ds_id") for weight in model.parameters()):
        return "its weights are sharded"
    if {weight.dtype for layer in layers for weight in _norm_weights(layer)} != {model.dtype}:
        return "its norms are in another precision than what they read"
    return None


def _norm_weights(layer: nn.Module) -> list[nn.Parameter]:
    return [weight for name, weight in layer.named_parameters() if name.endswith("layernorm.weight")]


def _unlike(layer: Any) -> str | None:
    """In what a layer is not of this kind."""
    kind = type(layer).__name__
    if kind not in CLASSES or {name for name, _ in layer.named_children()} != _PARTS:
        return f"{kind} is none of {', '.join(CLASSES)}"
    if unread := sorted(set(inspect.signature(type(layer).forward).parameters) - _ARGUMENTS - _UNREAD):
        return f"{kind} of this transformers takes {', '.join(unread)} too"
    activation = layer.mlp.act_fn
    if not (isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"):
        return f"its MLP has {type(activation).__name__}, not SiLU"
    return None


def fused(layers: Sequence[Any]) -> list[tuple[nn.Module, Callable[[Forward], Forward]]]:
    """Each of a frozen model's layers and their MLPs, and what makes its forward: from nothing that it computes itself.

    Args:
        layers: The decoder layers of a model without an obstacle.
    """
    forwards = [(layer, partial(_layer, layer)) for layer in layers]
    forwards += [(layer.mlp, partial(_mlp, layer.mlp)) for layer in layers]
    return [(module, partial(_instead, forward)) for module, forward in forwards]


def _instead(forward: Forward, inner: Forward) -> Forward:
    return forward


def _layer(layer: Any, x_BSd: Tensor, **inputs: Any) -> Tensor:
    """(B, S, d) → (B, S, d)."""
    from msekit.backbones.gpu.operators import AddNorm, Norm, Rotary

    attention, before, behind = layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm
    normed_BSd = Norm.apply(x_BSd, before.weight, before.variance_epsilon)
    heads = (*x_BSd.shape[:2], -1, attention.head_dim)
    products = (attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (product(normed_BSd).view(heads).transpose(1, 2) for product in products)
    q, k = Rotary.apply(q, k, *inputs["position_embeddings"])
    if (cache := inputs.get("cache", inputs.get("past_key_values"))) is not None:
        k, v = cache.update(k, v, attention.layer_idx)
    attend = attention_of(attention)
    mixed, _ = attend(attention, q, k, v, inputs["attention_mask"], dropout=0.0, scaling=attention.scaling)
    delta_BSd = attention.o_proj(mixed.reshape(*x_BSd.shape[:2], -1))
    y_BSd, normed_BSd = AddNorm.apply(x_BSd, delta_BSd, behind.weight, behind.variance_epsilon)
    return y_BSd + layer.mlp(normed_BSd)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    """(…, d) → (…, d)."""
    from msekit.backbones.gpu.operators import Gated

    return mlp.down_proj(Gated.apply(mlp.gate_proj(x), mlp.up_proj(x)))


def attention_of(attention: Any) -> Any:
    """transformers' function for queries, keys and values, as the module itself takes it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager = sys.modules[type(attention).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager)
