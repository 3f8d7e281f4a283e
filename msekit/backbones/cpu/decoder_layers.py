"""The layers of a frozen LLM on a CPU that are computed as `frozen_layer.py` writes them, and its head likewise.

They are tried on the first samples that come: logits and their gradient beside those of transformers. They act within
`Backbone.logits` alone: anyone else who calls the model meets transformers' own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from msekit.backbones.cpu.decoder_layer import LINEARS, FrozenLayer, Parts, Seen
from msekit.backbones.cpu.packed_products import FrozenProduct, Product, product_of, products_of

CLASSES: tuple[str, ...] = ("LlamaDecoderLayer", "Qwen2DecoderLayer", "MistralDecoderLayer")
"""Layers of transformers that are this one."""
APART, APART_16_BIT = {torch.float32: 1e-3}, 0.7
"""How far, as a share, rounding may put two ways apart: in bf16 a real LLM's gradients were up to .27 apart."""


class FrozenLayers:
    """Lets a frozen model's layers be computed so within `used`.

    Args:
        model: The transformers model; its layers' `forward` is wrapped for good.
        layers: Its decoder layers, from the first to the last.
    """

    def __init__(self, model: nn.Module, layers: list[nn.Module]) -> None:
        self.columns: int | None = None
        """How many last columns of the running pass are read; None outside of `used`."""
        self.works: bool | None = None if layers and all(map(is_known, layers)) else False
        """Whether it leaves logits and gradients as they are; None before it was tried."""
        self._products: list[Product] = []
        if self.works is None:
            linears: list[Any] = [layer.get_submodule(name) for layer in layers for name in LINEARS]
            products = self._products = products_of(linears)
            for number, layer in enumerate(layers):
                own = products[number * len(LINEARS) : (number + 1) * len(LINEARS)]
                last = number == len(layers) - 1
                layer.forward = partial(self._forward, layer.forward, Parts.of(layer, own), number, last)
            head: Any = model.get_output_embeddings()  # type: ignore[operator]
            if is_plain(head):
                head.forward = partial(self._head, head.forward, product_of(head))

    def _forward(
        self, stock: Callable[..., Tensor], layer: Parts, number: int, last: bool, *x: Tensor, **given: Any
    ) -> Tensor:
        if self.columns is None:
            return stock(*x, **given)
        (x_BSd,) = x
        cos_BSD, sin_BSD = given["position_embeddings"]
        cache = given.get("cache", given.get("past_key_values"))
        prefix = None if cache is None else (cache.layers[number].keys, cache.layers[number].values)
        read = self.columns if last else x_BSd.shape[1]
        seen = Seen(cos_BSD.unsqueeze(1), sin_BSD.unsqueeze(1), given["attention_mask"], prefix, read)
        return FrozenLayer.apply(x_BSd, layer, seen)

    def _head(self, stock: Callable[[Tensor], Tensor], product: Product, x_BRd: Tensor) -> Tensor:
        if self.columns is None:
            return stock(x_BRd)
        return FrozenProduct.apply(x_BRd.flatten(0, 1), product).unflatten(0, x_BRd.shape[:2])

    @contextmanager
    def used(self, columns: int) -> Iterator[None]:
        """Within, all layers are computed so, the last one at so many last columns."""
        self.columns = columns
        try:
            yield
        finally:
            self.columns = None

    def try_on(self, logits: Callable[[Tensor], Tensor], embeddings_BSd: Tensor, columns: int) -> None:
        """Find out whether it works: logits and their gradient beside those of transformers."""
        if self.works is not None:
            return
        trains = torch.is_grad_enabled()
        try:
            plain = value_and_gradient(logits, embeddings_BSd)
            with self.used(columns):
                mine = value_and_gradient(logits, embeddings_BSd)
            self.works = all(map(alike, mine, plain))
        except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
            self.works = False
        for product in self._products:
            if not self.works or not trains:
                product.forget(transposed_alone=self.works)


def is_known(layer: Any) -> bool:
    """Whether a decoder layer is of this kind, its weights plain and whole on a CPU."""
    if type(layer).__name__ not in CLASSES:
        return False
    activation = getattr(layer.mlp, "act_fn", None)
    silu = isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"
    return silu and all(is_plain(layer.get_submodule(name)) for name in LINEARS)


def is_plain(linear: Any) -> bool:
    """Whether a linear layer's weights are as they are, whole and on a CPU."""
    return type(linear) is nn.Linear and linear.weight.device.type == "cpu" and not hasattr(linear.weight, "ds_id")


def value_and_gradient(logits: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the largest ones."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = logits(x)
        (gradient,) = torch.autograd.grad(value.amax(dim=-1).sum(), x)
    return value.detach(), gradient


def alike(mine: Tensor, plain: Tensor) -> bool:
    """Whether tensors that were computed in two ways differ by rounding alone, as a share of their length."""
    bound = APART.get(plain.dtype, APART_16_BIT)
    return bool(
        torch.linalg.vector_norm(mine.float() - plain.float()) <= bound * torch.linalg.vector_norm(plain.float())
    )
