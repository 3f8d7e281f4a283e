"""Linear layers of a frozen decoder that read the same input, as one product: queries, keys and values; gate and up.

One large product fills a GPU better than three small ones, and is launched once. Only frozen weights can be joined for
good: the layers' own become views of the joined one, so that nothing is held twice. What it gives has not been
measured; on a CPU the products are no quicker.

The first layer computes for the others, which are called with the very same input behind it. One that is called with
another input computes for itself. Shapes: any; d width of the input.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.switch import Forward, Over

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of what is joined, in the order in which it is called."""


def groups_of(model: nn.Module) -> list[list[nn.Linear]]:
    """Layers of a model that can be joined.

    The last decoder layer's queries are left alone: the way `last-layer` computes them at few columns.
    """
    layers = decoder_layers(model)
    last = {part for part in layers[-1].modules() if hasattr(part, "q_proj")} if layers else set()
    found = []
    for module in model.modules():
        for names in GROUPS:
            parts = [getattr(module, name, None) for name in names]
            plain = [part for part in parts if type(part) is nn.Linear and not hasattr(part.weight, "ds_id")]
            alike = len({(part.in_features, part.bias is None, part.weight.dtype) for part in plain}) == 1
            if len(plain) == len(names) and alike and not (module in last and names == GROUPS[0]):
                found.append(plain)
    return found


def obstacle(model: nn.Module) -> str | None:
    """Why nothing of a model can be joined."""
    names = " or ".join(", ".join(group) for group in GROUPS)
    return None if groups_of(model) else f"none of its modules has linear layers {names} in 16 bit or more"


class Joined:
    """The joined layers of a model.

    Args:
        model: The frozen transformers model, without an obstacle; its weights are put elsewhere, their values stay.
    """

    def __init__(self, model: nn.Module) -> None:
        self.forwards: list[Over] = [over for parts in groups_of(model) for over in _Group(parts).forwards]


class _Group:
    """Layers with the same input, in the order in which they are called."""

    def __init__(self, parts: list[nn.Linear]) -> None:
        self._sizes = [part.out_features for part in parts]
        self._weight, self._bias = _one([part.weight for part in parts]), _one([part.bias for part in parts])
        self._input: Tensor | None = None
        self._rest: dict[int, Tensor] = {}
        self.forwards: list[Over] = [(part, partial(self._over, number)) for number, part in enumerate(parts)]

    def _over(self, number: int, inner: Forward) -> Forward:
        return partial(self._forward, number, inner)

    def _forward(self, number: int, inner: Forward, x: Tensor) -> Tensor:
        """(…, d) → (…, this layer's outputs)."""
        if number == 0:
            first, *others = F.linear(x, self._weight, self._bias).split(self._sizes, dim=-1)
            self._input, self._rest = x, dict(enumerate(others, start=1))
            return first
        if x is not self._input or number not in self._rest:
            return inner(x)
        own = self._rest.pop(number)
        if not self._rest:  # nothing of a pass is held any longer than its layers take
            self._input = None
        return own


def _one(tensors: list[Any]) -> Any:
    """One tensor of several, along the outputs, which those then are views of; None for layers without a bias."""
    if tensors[0] is None:
        return None
    joined = torch.cat([tensor.data for tensor in tensors])
    for tensor, rows in zip(tensors, joined.split([len(tensor) for tensor in tensors]), strict=True):
        tensor.data = rows
    return joined
