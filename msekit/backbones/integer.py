"""Products in 8-bit integers on a CPU (`w8a8`): the frozen weights of LLM.int8, with activations rounded as well.

A CPU with VNNI or AMX multiplies 8-bit integers several times as fast as fp32 numbers. So every row of activations
(one token, K numbers) becomes integers from -127 to 127 and a scale, forward and backward; the integer products are
exact. Three things keep the rounding small (what each is worth: `benchmarks/RESULTS.md`, "Integers on a CPU"):

- a few features are far larger than the rest in every token (Dettmers et al. 2022, LLM.int8, section 4). Those of each
  layer are found once, on `CALIBRATION`, and stay in fp32;
- where one integer would still lose too much, as in the input of an MLP's last projection, whose large features differ
  from token to token, a second one keeps what the first has lost;
- a prefix is read without rounding activations (`exactly`): the first token's are the largest of all.

No row's result depends on another's, but rounding makes it jump: a sample scored beside other samples, whose padding
changes the last digits of its activations, gets log-probabilities equal to about a hundredth, not to 1e-5.

Shapes: M rows, K features in, N features out, k outlying features.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from msekit.backbones.kinds import OUTLIERS
from msekit.backbones.quantise import quantised_layers

LARGEST = 127
SECOND = 254
"""The second integer counts in this many parts of the first's unit: half a unit, the most there is to keep, is 127."""
TOLERATED = 0.015
"""Share of an input (Euclidean norm) that one integer may lose. SmolLM2's MLP projections lose .02, the rest .011."""
CALIBRATION = (
    'She laughed: "Oh my God, he\'s lost it!" Nobody in the office knew what to make of it. Was she angry, or just '
    "tired? (0 joy 1 anger 2 sadness) Sentiment +0.5. 我真的很喜欢这部电影，但是结局让人难过。"
)


class Rounded(NamedTuple):
    """Activations as integers."""

    whole: Tensor
    """(M, K) int8, or (2 M, K) with the second integers below."""
    unit: Tensor
    """(M, 1): what one unit is worth."""
    outliers: Tensor
    """(M, k): the features that were left out, as they are."""


def _round(x_MK: Tensor, kept_K: Tensor) -> tuple[Tensor, Tensor]:
    """Each row times `kept_K` (0 for what is left out) → integers, and what their unit is worth (M, 1)."""
    x_MK = x_MK.float() * kept_K
    largest_M1 = x_MK.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    return (x_MK * (LARGEST / largest_M1)).round().to(torch.int8), largest_M1 / LARGEST


def _round_twice(x_MK: Tensor, kept_K: Tensor) -> tuple[Tensor, Tensor]:
    """Likewise, with second integers below."""
    x_MK = x_MK.float() * kept_K
    largest_M1 = x_MK.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    units_MK = x_MK * (LARGEST / largest_M1)
    whole_MK = units_MK.round()
    rest_MK = ((units_MK - whole_MK) * SECOND).round()
    return torch.cat([whole_MK.to(torch.int8), rest_MK.to(torch.int8)]), largest_M1 / LARGEST


def _finish(sums_MN: Tensor, unit_M1: Tensor, outliers_MN: Tensor, scale_N: Tensor) -> Tensor:
    """Integer products → what they stand for, with the outliers' share."""
    return (sums_MN.float() * unit_M1 + outliers_MN) * scale_N


def _finish_twice(sums_2MN: Tensor, unit_M1: Tensor, outliers_MN: Tensor, scale_N: Tensor) -> Tensor:
    """Likewise, of two integers."""
    count = len(unit_M1)
    sums_MN = sums_2MN[:count].float() + sums_2MN[count:].float() / SECOND
    return (sums_MN * unit_M1 + outliers_MN) * scale_N


def _finish_back(sums_MK: Tensor, unit_M1: Tensor) -> Tensor:
    return sums_MK.float() * unit_M1


class Steps:
    """The element-wise steps around the integer products.

    Args:
        fuse: Makes one pass of a step's operators, or leaves it alone.
    """

    def __init__(self, fuse: Callable[..., Any]) -> None:
        self.round, self.round_twice = fuse(_round), fuse(_round_twice)
        self.finish, self.finish_twice, self.finish_back = fuse(_finish), fuse(_finish_twice), fuse(_finish_back)

    @torch.no_grad()
    def try_out(self) -> None:
        """Compile what is to be compiled: any exception says that it cannot be."""
        x_MK, scale_N, outliers_MN = torch.rand(6, 10), torch.rand(14), torch.rand(6, 14)
        _, unit = self.round(x_MK, torch.ones(10))
        self.round_twice(x_MK, torch.ones(10))
        self.finish(torch.ones(6, 14, dtype=torch.int32), unit, outliers_MN, scale_N)
        self.finish_twice(torch.ones(12, 14, dtype=torch.int32), unit, outliers_MN, scale_N)
        self.finish_back(torch.ones(6, 10, dtype=torch.int32), unit)


@cache
def best_steps() -> Steps:
    """Fused where there is a C++ compiler, as they are written elsewhere: the same up to fp32's last digits."""
    try:
        fused = Steps(partial(torch.compile, dynamic=True))
        fused.try_out()
        return fused
    except Exception:  # no compiler, one that is broken, no headers of Python: torch raises whatever it met
        return Steps(lambda step: step)


def rows(x: Tensor) -> Tensor:
    """(…, K) → (M, K), detached last: the steps would be compiled again for every kind of view."""
    return x.flatten(0, -2).detach()


class Inputs:
    """Rounds what one or several layers read.

    Args:
        seen_MK: What they read of `CALIBRATION`.
        steps: Compiled or not.
    """

    def __init__(self, seen_MK: Tensor, steps: Steps) -> None:
        largest_K = seen_MK.abs().amax(dim=0)
        self.outlying_k = largest_K.topk(min(OUTLIERS, len(largest_K))).indices.sort().values
        self.kept_K = torch.ones_like(largest_K).index_fill_(0, self.outlying_k, 0.0)
        whole, unit = _round(seen_MK, self.kept_K)
        self.lost = float((whole * unit - seen_MK * self.kept_K).norm() / seen_MK.norm())
        self.twice = self.lost > TOLERATED
        self.exact = False
        self.steps = steps
        self._last: tuple[weakref.ref[Tensor], Rounded] | None = None

    @torch.no_grad()
    def round(self, x: Tensor) -> Rounded:
        """Round (…, K), once where several layers are given the same tensor one after the other."""
        if self._last is None or self._last[0]() is not x:
            x_MK = rows(x)
            whole, unit = (self.steps.round_twice if self.twice else self.steps.round)(x_MK, self.kept_K)
            self._last = weakref.ref(x), Rounded(whole, unit, x_MK.index_select(1, self.outlying_k).float())
        return self._last[1]


class IntegerLinear:
    """The forward of one frozen linear layer.

    Args:
        layer: A layer of bitsandbytes with int8 weights (N, K), on the CPU.
        inputs: What rounds its input; shared by the layers that read the same one.
    """

    def __init__(self, layer: Any, inputs: Inputs) -> None:
        held = layer.weight
        scale_N = held.SCB if held.SCB is not None else layer.state.SCB
        self.inputs, self.steps = inputs, inputs.steps
        self.weight_NK: Tensor = held.data
        self.scale_N: Tensor = scale_N.float() / LARGEST
        self.columns_kN = self.weight_NK[:, inputs.outlying_k].T.float().contiguous()
        self.bias: Tensor | None = layer.bias
        self.plain: Callable[[Tensor], Tensor] = layer.forward

    def __call__(self, x: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        if self.inputs.exact:
            return self.plain(x)
        y = IntegerProducts.apply(x, self.inputs.round(x), self)
        return y if self.bias is None else y + self.bias

    def multiply(self, x: Rounded) -> Tensor:
        """(M, K) → (M, N) in fp32."""
        sums = torch._int_mm(x.whole, self.weight_NK.T)
        finish = self.steps.finish_twice if self.inputs.twice else self.steps.finish
        return finish(sums, x.unit, x.outliers @ self.columns_kN, self.scale_N)

    def multiply_back(self, grad_MN: Tensor) -> Tensor:
        """(M, N) → (M, K) in fp32."""
        whole, unit = self.steps.round(grad_MN, self.scale_N)
        return self.steps.finish_back(torch._int_mm(whole, self.weight_NK), unit)


class IntegerProducts(torch.autograd.Function):
    """x Wᵀ with x and, in the backward pass, the gradient rounded to integers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Rounded, layer: IntegerLinear) -> Tensor:
        """(…, K) → (…, N) in x's dtype."""
        ctx.layer = layer
        return layer.multiply(rounded).to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """(…, N) → (…, K)."""
        (grad,) = grads
        return ctx.layer.multiply_back(rows(grad)).to(grad.dtype).view(*grad.shape[:-1], -1), None, None


def round_activations(model: nn.Module, tokens: list[int]) -> list[Inputs]:
    """Make a model on the CPU, its linear layers held in int8, multiply integers.

    Args:
        model: A frozen causal LM.
        tokens: Of `CALIBRATION`.

    Returns:
        What its layers read.
    """
    layers: dict[str, Any] = dict(quantised_layers(model))
    steps = best_steps()
    found: dict[str, Inputs] = {}
    last: list[tuple[Tensor, Inputs]] = []

    def look(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not last or last[0][0] is not args[0]:
            last[:] = [(args[0], Inputs(args[0].flatten(0, -2).float(), steps))]
        found[name] = last[0][1]

    hooks = [layer.register_forward_pre_hook(partial(look, name)) for name, layer in layers.items()]
    with torch.no_grad():
        model(torch.tensor([tokens]))
    for hook in hooks:
        hook.remove()
    for name, inputs in found.items():
        layers[name].forward = IntegerLinear(layers[name], inputs)
    return list(dict.fromkeys(found.values()))


@contextmanager
def exactly(inputs: list[Inputs]) -> Iterator[None]:
    """Within, activations are not rounded."""
    before = [each.exact for each in inputs]
    for each in inputs:
        each.exact = True
    try:
        yield
    finally:
        for each, exact in zip(inputs, before, strict=True):
            each.exact = exact
