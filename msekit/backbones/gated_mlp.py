"""The gated MLP of today's decoders, keeping two activations for its backward pass where autograd keeps three.

`down(silu(gate(x)) * up(x))` written plainly keeps gate, silu(gate) and up. silu(gate) is cheap to compute again: that
is a sixth of what a step holds (`benchmarks/RESULTS.md`). Values and gradients stay the same bit for bit.

Shapes: any; F the width between the projections.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WRITTEN = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
"""How the architectures of transformers that have it write it."""


class GatedSiLU(torch.autograd.Function):
    """`silu(gate) * up`, elementwise."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """(…, F) and (…, F) → (…, F)."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """What autograd computes, from silu(gate) computed again."""
        gate, up = ctx.saved_tensors
        (grad,) = grads
        return torch.ops.aten.silu_backward(grad * up, gate), grad * F.silu(gate)


def keep_less(model: nn.Module) -> int:
    """Give every such MLP of a frozen model this forward; how many there were."""
    found = [module for module in model.modules() if is_gated_silu(module)]
    for module in found:
        module.forward = partial(_forward, module)
    return len(found)


def is_gated_silu(module: nn.Module) -> bool:
    """Whether a module is one: by its parts, and by how its class writes what it computes."""
    if not all(isinstance(getattr(module, f"{part}_proj", None), nn.Module) for part in ("gate", "up", "down")):
        return False
    activation = getattr(module, "act_fn", None)
    silu = isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"
    return silu and WRITTEN in inspect.getsource(type(module).forward)


def _forward(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(module.gate_proj(x), module.up_proj(x)))
