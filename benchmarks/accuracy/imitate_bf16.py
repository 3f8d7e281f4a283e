"""Run an msekit command whose bf16 products are computed in fp32 and rounded: what a CPU with AMX computes, on any CPU.

    python -m benchmarks.accuracy.imitate_bf16 train --backbone smollm2-135m \\
        --dataset ../shared/data/ravdess/ravdess.yaml --set model.dtype=bf16

A unit for bf16 adds up in fp32 and rounds once, and so does this, at the speed of fp32. torch without such a unit gives
the same up to the order of its sums, ten times as slowly. For accuracy only: it says nothing of speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.bmm.default, aten.baddbmm.default}
PRODUCTS |= {aten.baddbmm.out, aten.linear.default}


class InFp32(TorchDispatchMode):
    """Computes products of bf16 matrices in fp32 and rounds the result."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute one operator: its products of bf16 in fp32, rounded once."""
        kwargs = kwargs or {}
        if func not in PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        wide = [value.float() if isinstance(value, torch.Tensor) else value for value in args]
        if func is aten.addmm_.default:
            return args[0].copy_(aten.addmm.default(*wide, **kwargs))
        if func is aten.baddbmm.out:
            out = kwargs.pop("out")
            return out.copy_(aten.baddbmm.default(*wide, **kwargs))
        return func(*wide, **kwargs).bfloat16()


if __name__ == "__main__":
    from msekit.cli.main import run

    with InFp32():
        run()
