"""Parts of a frozen decoder whose gradient is written out: less is kept for the backward pass, and less is computed.

- The gated MLP, `down(silu(gate) * up)`: autograd keeps gate, silu(gate) and up; silu(gate) is cheap to compute again.
  Values and gradients stay the same bit for bit.
- RMSNorm: autograd keeps its input in fp32 and walks back through each of its operators. With a frozen weight the
  input in its own precision and one number per column are enough. Values stay the same bit for bit, gradients up to
  rounding.

What they give is measured in `benchmarks/RESULTS.md` ("Speed").

Shapes: any; F the width between an MLP's projections, d the width of a norm.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
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


class FrozenRMSNorm(torch.autograd.Function):
    """`weight * x / rms(x)`, in fp32 up to the product with the weight; the weight gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """(…, d), (d) → (…, d)."""
        wide = x.float()
        scale = wide.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """With g the gradient times the weight and s the scale: s g - x s³ mean(g x)."""
        x, weight, scale = ctx.saved_tensors
        (grad,) = grads
        wide, asked = x.float(), (grad * weight).float()
        mean = torch.linalg.vecdot(asked, wide).unsqueeze(-1) / x.shape[-1]
        return (asked * scale).addcmul_(wide, mean * scale**3, value=-1).to(x.dtype), None, None


def make_leaner(model: nn.Module) -> int:
    """Give a frozen model's parts of these kinds their forward; how many there were."""
    count = 0
    for module in model.modules():
        if (forward := forward_for(module)) is not None:
            module.forward = partial(forward, module)
            count += 1
    return count


def forward_for(module: nn.Module) -> Callable[..., Tensor] | None:
    """The leaner forward for a module whose class writes its own in a way that is known here; None for any other."""
    activation = getattr(module, "act_fn", getattr(module, "activation_fn", None))
    silu = isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"
    if not silu and not hasattr(module, "variance_epsilon"):
        return None
    (written,) = ast.parse(textwrap.dedent(inspect.getsource(type(module).forward))).body
    assert isinstance(written, ast.FunctionDef)
    body = written.body[1:] if ast.get_docstring(written) else written.body
    return _WRITTEN.get("\n".join(map(ast.unparse, body)))


def _apart(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(module.gate_proj(x), module.up_proj(x)))


def _joined(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(GatedSiLU.apply(*module.gate_up_proj(x).chunk(2, dim=-1)))


def _norm(module: Any, x: Tensor) -> Tensor:
    return FrozenRMSNorm.apply(x, module.weight, module.variance_epsilon)


_WRITTEN = {
    # Llama, Qwen, Mistral and many more
    "down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))\nreturn down_proj": _apart,
    "return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))": _apart,
    # GLM, Phi-3
    "up_states = self.gate_up_proj(hidden_states)\n"
    "gate, up_states = up_states.chunk(2, dim=-1)\n"
    "up_states = up_states * self.activation_fn(gate)\n"
    "return self.down_proj(up_states)": _joined,
    # all of these
    "input_dtype = hidden_states.dtype\n"
    "hidden_states = hidden_states.to(torch.float32)\n"
    "variance = hidden_states.pow(2).mean(-1, keepdim=True)\n"
    "hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)\n"
    "return self.weight * hidden_states.to(input_dtype)": _norm,
}
"""How transformers writes it, word for word and nothing besides, and what computes the same."""
