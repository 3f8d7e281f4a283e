"""The gated MLP of today's decoders, keeping two activations for its backward pass where autograd keeps three.

`down(silu(gate) * up)` written plainly keeps gate, silu(gate) and up. silu(gate) is cheap to compute again: that is a
sixth of what a step holds (`benchmarks/RESULTS.md`). Values and gradients stay the same bit for bit.

Shapes: any; F the width between the projections.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    count = 0
    for module in model.modules():
        if (forward := forward_for(module)) is not None:
            module.forward = partial(forward, module)
            count += 1
    return count


def forward_for(module: nn.Module) -> Callable[..., Tensor] | None:
    """The forward that keeps less, for a module with SiLU whose class writes its own in a way that is known here."""
    activation = getattr(module, "act_fn", getattr(module, "activation_fn", None))
    if not isinstance(activation, nn.SiLU) and type(activation).__name__ != "SiLUActivation":
        return None
    source = inspect.getsource(type(module).forward)
    return next((forward for written, forward in _WRITTEN.items() if written in source), None)


def _apart(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(module.gate_proj(x), module.up_proj(x)))


def _joined(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(*module.gate_up_proj(x).chunk(2, dim=-1)))


_WRITTEN = {
    "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))": _apart,  # Llama, Qwen, Mistral and many more
    "up_states = up_states * self.activation_fn(gate)": _joined,  # GLM, Phi-3
}
"""How transformers writes it, and what computes the same."""
