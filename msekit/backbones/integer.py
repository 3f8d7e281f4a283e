"""Products in 8-bit integers on a CPU (`w8a8`): the frozen weights of LLM.int8, with activations rounded as well.

A CPU with VNNI or AMX multiplies 8-bit integers several times as fast as fp32 numbers. So every row of activations
(one token, K numbers) becomes integers from -127 to 127 and a scale, and the integer products are exact. Other CPUs
overflow, or have no quick product: they multiply the same integers in fp32, up to its rounding. One integer a number
is enough for gradients. Forward, where a few features are far larger than the rest (Dettmers et al. 2022, LLM.int8,
section 4), a second one keeps what the first has lost: 15 bits together, and no feature needs to be treated apart. What
that costs and gives is in `benchmarks/RESULTS.md` ("Integers on a CPU").

No row's result depends on another's. Rounding is a step, though: last digits that differ, as beside other samples they
do, may move an integer by one, so gradients agree far less than to fp32's last digits from one batch to another.

Shapes: M rows, K features in, N features out.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from msekit.backbones.precision import abilities
from msekit.backbones.quantise import quantised_layers, row_scales

LARGEST = 127
SECOND = 254
"""The second integer counts in this many parts of the first's unit: half a unit, the most there is to keep, is 127."""

UNITS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Of a CPU that multiplies 8-bit integers quickly, as `torch.cpu.get_capabilities` calls them."""

_TRIED = (500, 1000)
"""Tokens of a batch and features of a layer, roughly."""

Rounded = tuple[Tensor, Tensor]
"""Integers, (M, K) int8 or (2 M, K) with the second ones below, and what a unit of the first is worth (M, 1)."""


def _round(x_MK: Tensor, weights_K: Tensor) -> Rounded:
    """Each row times the weights, as one integer a number."""
    x_MK = x_MK.float() * weights_K
    largest_M1 = x_MK.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    return (x_MK * (LARGEST / largest_M1)).round().to(torch.int8), largest_M1 / LARGEST


def _round_twice(x_MK: Tensor) -> Rounded:
    """Each row as two integers a number."""
    x_MK = x_MK.float()
    largest_M1 = x_MK.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    units_MK = x_MK * (LARGEST / largest_M1)
    whole_MK = units_MK.round()
    rest_MK = ((units_MK - whole_MK) * SECOND).round()
    return torch.cat([whole_MK.to(torch.int8), rest_MK.to(torch.int8)]), largest_M1 / LARGEST


def _finish(sums_MK: Tensor, unit_M1: Tensor) -> Tensor:
    """Products with one integer a number → what they stand for."""
    return sums_MK.float() * unit_M1


def _finish_twice(sums_2MN: Tensor, unit_M1: Tensor, scale_N: Tensor) -> Tensor:
    """Products with two integers a number → what they stand for, times the weights' scales."""
    count = len(unit_M1)
    return (sums_2MN[:count].float() + sums_2MN[count:].float() / SECOND) * unit_M1 * scale_N


class Steps:
    """The element-wise steps around the integer products.

    Args:
        fuse: Makes one pass of a step's operators, or leaves it alone.
    """

    def __init__(self, fuse: Callable[..., Any]) -> None:
        self.round, self.round_twice = fuse(_round), fuse(_round_twice)
        self.finish, self.finish_twice = fuse(_finish), fuse(_finish_twice)

    @torch.no_grad()
    def try_out(self) -> None:
        """Compile what is to be compiled: any exception says that it cannot be.

        At sizes as they come up: for a few numbers, programs would be made that never use a second core.
        """
        x_MK, weights_K = torch.rand(_TRIED), torch.rand(_TRIED[1])
        whole, unit = self.round(x_MK, weights_K)
        self.finish(whole.int(), unit)
        whole, unit = self.round_twice(x_MK)
        self.finish_twice(whole.int(), unit, weights_K)


@cache
def best_steps() -> Steps:
    """Fused where there is a C++ compiler, as they are written elsewhere: the same up to fp32's last digits."""
    try:
        fused = Steps(partial(torch.compile, dynamic=True))
        fused.try_out()
        return fused
    except Exception as error:  # no compiler, one that is broken, no headers of Python: torch raises whatever it met
        first = next(iter(str(error).splitlines()), type(error).__name__)
        logging.getLogger(__name__).warning("w8a8 is not as quick as it could be: nothing can be compiled (%s)", first)
        return Steps(lambda step: step)


@cache
def products_are_quick() -> bool:
    """Whether this CPU multiplies 8-bit integers quickly and exactly.

    Without such a unit torch adds up in 16 bit, which overflows, or number by number.
    """
    return any(abilities().get(unit) for unit in UNITS) and adds_up_exactly()


def adds_up_exactly() -> bool:
    """Whether torch's products of the largest 8-bit integers are what they are on this CPU."""
    a_MK = torch.full((16, 256), LARGEST, dtype=torch.int8)
    a_MK[::2, ::3] = -LARGEST
    return bool(torch.equal(torch._int_mm(a_MK, a_MK.T).double(), a_MK.double() @ a_MK.double().T))


def kind_here(quantization: str, device: torch.device) -> str:
    """How to hold here what was trained elsewhere: int8, the same weights, where w8a8's products cannot be had."""
    return "int8" if quantization == "w8a8" and device.type != "cpu" else quantization


def rows(x: Tensor) -> Tensor:
    """(…, K) → (M, K), detached last: the steps would be compiled again for every kind of view."""
    return x.flatten(0, -2).detach()


class Rounding:
    """How a model's activations are rounded.

    Args:
        steps: Compiled or not.
        quick: Multiply integers; else the same numbers in fp32.
    """

    def __init__(self, steps: Steps, quick: bool = True) -> None:
        self.steps, self.quick = steps, quick
        self.off = False
        self._last: tuple[weakref.ref[Tensor], Rounded] | None = None

    @torch.no_grad()
    def of(self, x: Tensor) -> Rounded:
        """(…, K) as two integers a number: computed once where layers that follow each other read the same tensor.

        Kept as long as the tensor lives; nobody may change it in place meanwhile.
        """
        last = self._last
        if last is None or last[0]() is not x:
            last = self._last = weakref.ref(x, self._forget), self.steps.round_twice(rows(x))
        return last[1]

    def _forget(self, dead: weakref.ref[Tensor]) -> None:
        if self._last is not None and self._last[0] is dead:
            self._last = None

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Within, activations are not rounded."""
        before, self.off = self.off, True
        try:
            yield
        finally:
            self.off = before


class IntegerLinear:
    """The forward of one frozen linear layer.

    Args:
        layer: A layer of bitsandbytes with int8 weights (N, K), on the CPU.
        rounding: The model's.
    """

    def __init__(self, layer: Any, rounding: Rounding) -> None:
        self.rounding = rounding
        self.weight_NK: Tensor = layer.weight.data
        self.scale_N: Tensor = row_scales(layer).float() / LARGEST
        self.bias: Tensor | None = layer.bias
        self.plain: Callable[[Tensor], Tensor] = layer.forward

    def __call__(self, x: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        if self.rounding.off:
            return self.plain(x)
        y = IntegerProducts.apply(x, self.rounding.of(x), self)
        return y if self.bias is None else y + self.bias

    def multiply(self, x: Rounded) -> Tensor:
        """(M, K) → (M, N) in fp32."""
        whole, unit = x
        if self.rounding.quick:
            return self.rounding.steps.finish_twice(torch._int_mm(whole, self.weight_NK.T), unit, self.scale_N)
        first_MK, second_MK = whole.tensor_split(2)
        sums_MN = first_MK.float().add_(second_MK, alpha=1 / SECOND) @ self.weight_NK.T.float()
        return sums_MN.mul_(unit).mul_(self.scale_N)

    def multiply_back(self, grad_MN: Tensor) -> Tensor:
        """(M, N) → (M, K) in fp32."""
        steps = self.rounding.steps
        whole, unit = steps.round(grad_MN, self.scale_N)
        if self.rounding.quick:
            return steps.finish(torch._int_mm(whole, self.weight_NK), unit)
        return (whole.float() @ self.weight_NK.float()).mul_(unit)


class IntegerProducts(torch.autograd.Function):
    """x Wᵀ with x and, in the backward pass, the gradient rounded to integers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Rounded, layer: IntegerLinear) -> Tensor:
        """(…, K) → (…, N) in x's dtype."""
        ctx.layer = layer
        return layer.multiply(rounded).to(x.dtype).view(*x.shape[:-1], len(layer.weight_NK))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """(…, N) → (…, K)."""
        (grad,) = grads
        back_MK = ctx.layer.multiply_back(rows(grad))
        return back_MK.to(grad.dtype).view(*grad.shape[:-1], back_MK.shape[1]), None, None


def round_activations(model: nn.Module) -> Rounding:
    """Make a model on the CPU, its linear layers held in int8, multiply integers."""
    quick = products_are_quick()
    if not quick:
        logging.getLogger(__name__).warning(
            "w8a8 is slower than fp32 here: this CPU has neither VNNI nor AMX that torch can use"
        )
    rounding = Rounding(best_steps(), quick)
    for _, layer in quantised_layers(model):
        layer.forward = IntegerLinear(layer, rounding)
    return rounding
