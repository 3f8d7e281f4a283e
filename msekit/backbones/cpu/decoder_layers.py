"""The layers of a frozen LLM on a CPU that are computed as `decoder_layer.py` writes them.

They act within a pass that asks for them: anyone else who calls the model meets transformers' own layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from msekit.backbones.cpu.decoder_layer import LINEARS, FrozenLayer, Parts, Seen
from msekit.backbones.cpu.packed_products import PackedProduct, Product, why_not_packed

CLASSES: tuple[str, ...] = ("LlamaDecoderLayer", "Qwen2DecoderLayer", "MistralDecoderLayer")
"""Layers of transformers that are this one."""
_WEIGHTS = {f"{name}.weight" for name in (*LINEARS, "input_layernorm", "post_attention_layernorm")}
_MAY_HAVE = {f"{name}.bias" for name in LINEARS}
_ARGUMENTS = {"attention_mask", "cache", "past_key_values", "position_embeddings"}
"""What transformers gives a layer beside its input, as far as it is read here."""
_UNREAD = {"hidden_states", "position_ids", "use_cache", "cache_position", "kwargs"}
"""What it may give besides: the input itself, and what is in the other arguments already."""


def obstacle(layers: list[nn.Module]) -> str | None:
    """Why a decoder's layers cannot be computed so, as far as their structure tells."""
    if not layers:
        return "the architecture does not mark its decoder layers"
    return next(filter(None, map(_unlike, layers)), None)


def _unlike(layer: Any) -> str | None:
    """In what a layer is not of this kind, its weights plain and whole on a CPU."""
    if any(weight.device.type != "cpu" for weight in layer.parameters()):
        return "written out for a CPU alone"
    if type(layer).__name__ not in CLASSES:
        return f"{type(layer).__name__} is none of {', '.join(CLASSES)}"
    weights = {name for name, _ in layer.named_parameters()}
    if odd := sorted((weights ^ _WEIGHTS) - _MAY_HAVE):
        return f"{type(layer).__name__} here has or lacks {', '.join(odd)}"
    if unread := sorted(set(inspect.signature(type(layer).forward).parameters) - _ARGUMENTS - _UNREAD - {"self"}):
        return f"{type(layer).__name__} of this transformers takes {', '.join(unread)} too"
    activation = layer.mlp.act_fn
    if not (isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"):
        return f"its MLP has {type(activation).__name__}, not SiLU"
    linears = [layer.get_submodule(name) for name in LINEARS]
    if odd_kind := next((type(linear).__name__ for linear in linears if type(linear) is not nn.Linear), None):
        return f"its weights are in a {odd_kind}"
    return "its weights are sharded" if any(hasattr(linear.weight, "ds_id") for linear in linears) else None


class FrozenLayers:
    """The written-out forwards of a frozen model's layers.

    Args:
        layers: Its decoder layers, from the first to the last, without an obstacle.
        recomputed: For each, whether it keeps its input alone for the backward pass.
    """

    def __init__(self, layers: list[nn.Module], recomputed: list[bool]) -> None:
        self.columns = 0
        """How many last columns of the running pass are read."""
        linears: list[Any] = [layer.get_submodule(name) for layer in layers for name in LINEARS]
        self.not_laid_out = why_not_packed(linears)
        """Why the weights are multiplied as they are; None where they are laid out."""
        products = [Product(linear) if self.not_laid_out else PackedProduct(linear) for linear in linears]
        self.forwards: list[tuple[nn.Module, Callable[[Any], Callable[..., Tensor]]]] = []
        """Each layer, and what makes its forward: from nothing that it computes itself."""
        for number, layer in enumerate(layers):
            own = products[number * len(LINEARS) : (number + 1) * len(LINEARS)]
            parts = Parts.of(layer, own, recomputed[number])
            forward = partial(self._forward, parts, number, number == len(layers) - 1)
            self.forwards.append((layer, partial(_instead, forward)))

    def _forward(self, layer: Parts, number: int, last: bool, x_BSd: Tensor, **inputs: Any) -> Tensor:
        cos_BSD, sin_BSD = inputs["position_embeddings"]
        cache = inputs.get("cache", inputs.get("past_key_values"))
        prefix = None if cache is None else (cache.layers[number].keys, cache.layers[number].values)
        read = self.columns if last else x_BSd.shape[1]
        seen = Seen(cos_BSD.unsqueeze(1), sin_BSD.unsqueeze(1), inputs["attention_mask"], prefix, read)
        return FrozenLayer.apply(x_BSd, layer, seen)


def _instead(forward: Callable[..., Tensor], inner: Any) -> Callable[..., Tensor]:
    return forward
