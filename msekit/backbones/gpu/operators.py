"""The kernels as operators with gradients; weights are frozen and get none.

With `TRITON_INTERPRET=1`, set before Triton is loaded, they run on a CPU, number by number, for tests.

Shapes: d width of the model, F width between an MLP's projections, B batch, S columns, H query heads, G heads of keys,
D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msekit.backbones.gpu import kernels

_LONGEST_BLOCK = 1024
"""Numbers of a row that a program takes where it need not have all of them."""


class Norm(torch.autograd.Function):
    """RMSNorm, `weight * x / rms(x)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """(…, d), (d) → (…, d)."""
        _, out, kept = _normed(x, None, weight, eps)
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """(…, d) → (…, d)."""
        return _normed_back(None, grads[0], *ctx.saved_tensors), None, None


class AddNorm(torch.autograd.Function):
    """A residual and the RMSNorm behind it: `y = x + delta`, and `weight * y / rms(y)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """(…, d), (…, d), (d) → (…, d), (…, d)."""
        y, out, kept = _normed(x, delta, weight, eps)
        ctx.save_for_backward(*kept)
        return y, out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """(…, d), (…, d) → (…, d), (…, d)."""
        back = _normed_back(grads[0], grads[1], *ctx.saved_tensors)
        return back, back, None, None


def _normed(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """The sum, its norm, and what the gradient needs."""
    x, width = x.contiguous(), x.shape[-1]
    y = x if delta is None else torch.empty_like(x)
    out, scale_N = torch.empty_like(x), x.new_empty(x.numel() // width, dtype=torch.float32)
    given = x if delta is None else delta.contiguous()
    figures = (width, eps, delta is not None)
    _launch(kernels.norm, (len(scale_N),), x, given, weight, y, out, scale_N, *figures, **_whole_row(width))
    return y, out, (y, weight, scale_N)


def _normed_back(through: Tensor | None, grad: Tensor, y: Tensor, weight: Tensor, scale_N: Tensor) -> Tensor:
    grad, back, width = grad.contiguous(), torch.empty_like(y), y.shape[-1]
    given = grad if through is None else through.contiguous()
    figures = (width, through is not None)
    _launch(kernels.norm_back, (len(scale_N),), grad, given, y, weight, scale_N, back, *figures, **_whole_row(width))
    return back


class Gated(torch.autograd.Function):
    """`silu(gate) * up`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """(…, F), (…, F), parts of one product or tensors of their own → (…, F)."""
        ctx.save_for_backward(gate, up)
        out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
        gate_NF, up_NF = gate.flatten(0, -2), up.flatten(0, -2)
        figures = _rows(gate_NF, up_NF)
        _launch(kernels.gated, _blocks(gate_NF), gate_NF, up_NF, out, *figures, BLOCK=_LONGEST_BLOCK)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """(…, F) → (…, F), (…, F)."""
        gate, up = ctx.saved_tensors
        gate_NF, up_NF = gate.flatten(0, -2), up.flatten(0, -2)
        of_gate, of_up = (torch.empty(gate.shape, dtype=gate.dtype, device=gate.device) for _ in range(2))
        given = (grads[0].contiguous(), gate_NF, up_NF, of_gate, of_up, *_rows(gate_NF, up_NF))
        _launch(kernels.gated_back, _blocks(gate_NF), *given, BLOCK=_LONGEST_BLOCK)
        return of_gate, of_up


class Rotary(torch.autograd.Function):
    """Rotary positions of queries and keys: with x = (a, b) in halves, (a cos - b sin, b cos + a sin)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, S, D), (B, G, S, D), (B, S, D) twice → as q and k."""
        ctx.save_for_backward(cos, sin)
        return _turned(q, k, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """As the outputs → as q and k."""
        (of_q, of_k), (cos, sin) = grads, ctx.saved_tensors
        return *_turned(of_q, of_k, cos, sin, back=True), None, None


def _turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, back: bool) -> tuple[Tensor, Tensor]:
    (B, H, S, D), G = q.shape, k.shape[1]
    q, k = (each if each.stride(-1) == 1 else each.contiguous() for each in (q, k))
    # as products give and take them: the heads of a column one after the other
    outs = [torch.empty(B, S, heads, D, dtype=q.dtype, device=q.device).transpose(1, 2) for heads in (H, G)]
    cos, sin = cos.contiguous(), sin.contiguous()
    strides = [stride for each in (q, k, *outs) for stride in each.stride()[:3]]
    sizes = (*strides, S * D if cos.shape[0] > 1 else 0, D, H, S, D // 2)
    block = _power_of_two(D // 2)
    _launch(kernels.rotary, (B * S, H + G), q, k, *outs, cos, sin, *sizes, BACK=back, BLOCK=block)
    return outs[0], outs[1]


def _launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *given: Any, **figures: Any) -> None:
    with torch.cuda.device_of(x):  # Triton itself launches on the current one
        kernel[grid](x, *given, **figures)


def _power_of_two(size: int) -> int:
    """The next one, which a block's size has to be."""
    return 1 << (size - 1).bit_length()


def _whole_row(width: int) -> dict[str, int]:
    block = _power_of_two(width)
    return {"BLOCK": block, "num_warps": min(max(block // 256, 1), 16)}


def _blocks(x_NF: Tensor) -> tuple[int, int]:
    return x_NF.shape[0], -(-x_NF.shape[1] // _LONGEST_BLOCK)


def _rows(gate_NF: Tensor, up_NF: Tensor) -> tuple[int, int, int]:
    return gate_NF.stride(0), up_NF.stride(0), gate_NF.shape[1]
