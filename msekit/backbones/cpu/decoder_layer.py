"""A decoder layer of a frozen LLM on a CPU, forward and gradient written out: fewer passes over memory, less kept.

Of the layer that Llama, Qwen 2, Mistral and many more share:

    y = x + o(attention(rotate(q n), rotate(k n), v n))      n = norm(x)
    z = y + down(silu(gate m) * up m)                        m = norm(y)

What it does otherwise than transformers, which is written for weights that train and for any attention: queries of the
heads that share keys are one product, so keys and values are never repeated; residuals are added by the products;
rotations go straight to where they are read; weights are laid out for their products once (`packed_products.py`); the
gradient of what is frozen is not prepared for; and the last layer is computed only at the columns whose logits are
read. Values and gradients are those of transformers up to rounding. What it gives is in
`benchmarks/speed/RESULTS.md`; `decoder_layers.py` tells which models' layers are of this kind.

Shapes: B batch, S columns, R last columns that are read, P columns of a prefix, T = P + S, H query heads, G heads of
keys and values, D width of a head, d width of the model, F width between an MLP's projections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msekit.backbones.cpu.packed_products import Product

LINEARS = tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
)


@dataclass
class Parts:
    """What a layer computes with."""

    norm: Any
    """RMSNorm in front of the attention."""
    second_norm: Any
    """In front of the MLP."""
    q: Product
    k: Product
    v: Product
    o: Product
    gate: Product
    up: Product
    down: Product
    head: int
    """D."""
    heads: int
    """H."""
    groups: int
    """G."""
    scaling: float
    """Of the scores."""
    recompute: bool
    """Keep the input alone for the backward pass."""

    @classmethod
    def of(cls, layer: Any, products: list[Product], recompute: bool) -> Parts:
        """Those of a layer of transformers and its products, in the order of `LINEARS`."""
        q, k, v, o, gate, up, down = products
        attention, width = layer.self_attn, layer.self_attn.head_dim
        return cls(
            *(layer.input_layernorm, layer.post_attention_layernorm),
            *(q, k, v, o, gate, up, down),
            head=width,
            heads=attention.q_proj.out_features // width,
            groups=attention.k_proj.out_features // width,
            scaling=attention.scaling,
            recompute=recompute,
        )


@dataclass
class Seen:
    """What all layers of a pass share."""

    cos: Tensor
    """(B, 1, S, D), of every column's position."""
    sin: Tensor
    """(B, 1, S, D)."""
    mask: Tensor
    """(B, 1, S, T), added to the scores."""
    prefix: tuple[Tensor, Tensor] | None
    """Keys and values (1, G, P, D) that were read before."""
    read: int
    """R."""


class FrozenLayer(torch.autograd.Function):
    """One layer; its weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, x_BSd: Tensor, layer: Parts, seen: Seen) -> Tensor:
        """(B, S, d) → (B, S, d), zeros where nothing is read."""
        y_BSd, kept = run(x_BSd.contiguous(), layer, seen)
        ctx.layer, ctx.seen = layer, seen
        ctx.save_for_backward(*(kept[:1] if layer.recompute else kept))
        return y_BSd

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """(B, S, d) → (B, S, d)."""
        kept = ctx.saved_tensors
        if ctx.layer.recompute:
            _, kept = run(kept[0], ctx.layer, ctx.seen)
        return run_back(grads[0], kept, ctx.layer, ctx.seen), None, None


def run(x_BSd: Tensor, layer: Parts, seen: Seen) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A layer's output, and what `run_back` needs of the way there, the input first.

    N = B * S rows go into keys and values, M = B * R rows into all the rest: they alone are read.
    """
    (B, S, d), R = x_BSd.shape, seen.read
    D, H, G = layer.head, layer.heads, layer.groups
    normed_BSd, scale_BS1 = norm(x_BSd, layer.norm)
    normed_Nd = normed_BSd.view(B * S, d)
    # keys and values: the prefix's in front, the batch's own rotated or copied to where they are read
    P = 0 if seen.prefix is None else seen.prefix[0].shape[2]
    k_BGTD, v_BGTD = (x_BSd.new_empty(B, G, P + S, D) for _ in range(2))
    if seen.prefix is not None:
        k_BGTD[:, :, :P], v_BGTD[:, :, :P] = seen.prefix
    rotate(apart(layer.k(normed_Nd), S, D), seen.cos, seen.sin, out=k_BGTD[:, :, P:])
    v_BGTD[:, :, P:] = apart(layer.v(normed_Nd), S, D)
    q_BHRD = apart(layer.q(normed_BSd[:, -R:].reshape(B * R, d)), R, D)
    q_BHRD = rotate(q_BHRD, seen.cos[:, :, -R:], seen.sin[:, :, -R:], out=x_BSd.new_empty(B, H, R, D))
    # the H / G query heads that share keys lie one after the other: one product of H / G * R rows
    q, k, v = q_BHRD.view(B * G, -1, D), k_BGTD.view(B * G, -1, D), v_BGTD.view(B * G, -1, D)
    scores_BHRT = scaled(q, k.transpose(1, 2), layer.scaling).view(B, H, R, -1)
    scores_BHRT += seen.mask[:, :, -R:]
    # in fp32 as transformers has it, and cast for the product alone: the backward pass reads it in fp32
    weights_BHRT = scores_BHRT.softmax(dim=-1, dtype=torch.float32)
    mixed = torch.bmm(weights_BHRT.view(B * G, -1, P + S).to(v.dtype), v)
    y_Md = layer.o.plus(joined(mixed.view(B, H, R, D)), x_BSd[:, -R:].reshape(B * R, d))
    normed_Md, scale_M1 = norm(y_Md, layer.second_norm)
    gate_MF, up_MF = layer.gate(normed_Md), layer.up(normed_Md)
    z_Md = layer.down.plus(F.silu(gate_MF).mul_(up_MF), y_Md)
    # not kept, as they are cheap to compute again: both norms' outputs, silu(gate), the attention's output
    kept = (x_BSd, scale_BS1, q, k, v, weights_BHRT, y_Md, scale_M1, gate_MF, up_MF)
    return behind_zeros(z_Md.view(B, R, d), S), kept


def run_back(grad_BSd: Tensor, kept: tuple[Tensor, ...], layer: Parts, seen: Seen) -> Tensor:
    """The gradient of a layer's input from that of its output z, walked from the end to the beginning.

    `grad_…` is the gradient of what the name says, `asked_…` the gradient of a norm's output.
    """
    x_BSd, scale_BS1, q, k, v, weights_BHRT, y_Md, scale_M1, gate_MF, up_MF = kept
    (B, S, d), R, T = x_BSd.shape, seen.read, weights_BHRT.shape[3]
    D, H, P = layer.head, layer.heads, T - S
    grad_Md = grad_BSd[:, -R:].reshape(B * R, d)  # of the columns in front nothing is read
    # z = y + down(silu(gate m) * up m): m = norm(y) is asked through up and through gate
    inner_MF = layer.down.back(grad_Md)
    asked_Md = layer.up.back(inner_MF * F.silu(gate_MF))
    # `inner` is not read again: it becomes the gradient of silu(gate) in place
    asked_Md = layer.gate.back_plus(torch.ops.aten.silu_backward(inner_MF.mul_(up_MF), gate_MF), asked_Md)
    # y directly, as a term of z, and through its norm
    grad_Md = norm_back(grad_Md, asked_Md, y_Md, scale_M1, layer.second_norm)
    # y = x + o(mixed), mixed = weights v: a product for each of B * G groups, of H / G * R rows of queries and T keys
    mixed = apart(layer.o.back(grad_Md), R, D).reshape(q.shape)
    weights = weights_BHRT.view(len(q), -1, T).to(v.dtype)
    own = slice(P, None)  # keys and values of the prefix are constants: no gradient goes there
    grad_v = torch.bmm(weights[:, :, own].transpose(1, 2), mixed)
    grad_weights = torch.bmm(mixed, v.transpose(1, 2)).view_as(weights_BHRT)
    scores = softmax_back(grad_weights, weights_BHRT).view(len(q), -1, T)
    # scores = scaling q k + mask, the mask a constant; a key is asked by all the queries of its group
    grad_q = scaled(scores, k, layer.scaling).view(B, H, R, D)
    grad_k = scaled(scores[:, :, own].transpose(1, 2), q, layer.scaling).view(B, -1, S, D)
    # n = norm(x): N rows are asked through values and keys, the M rows that are read through queries
    asked_Nd = layer.v.back(joined(grad_v.view(B, -1, S, D)))
    asked_Nd = layer.k.back_plus(rotate_back(grad_k, seen.cos, seen.sin), asked_Nd)
    queries = rotate_back(grad_q, seen.cos[:, :, -R:], seen.sin[:, :, -R:])
    if R == S:
        asked_Nd = layer.q.back_plus(queries, asked_Nd)
    else:
        asked_Nd.view(B, S, d)[:, -R:] += layer.q.back(queries).view(B, R, d)
    # x directly, as a term of y where that is read, and through its norm
    through_BSd = behind_zeros(grad_Md.view(B, R, d), S)
    return norm_back(through_BSd, asked_Nd.view(B, S, d), x_BSd, scale_BS1, layer.norm)


def behind_zeros(x_BRd: Tensor, columns: int) -> Tensor:
    """(B, R, d) → (B, columns, d)."""
    missing = columns - x_BRd.shape[1]
    return F.pad(x_BRd, (0, 0, missing, 0)) if missing else x_BRd


def apart(x_NM: Tensor, columns: int, width: int) -> Tensor:
    """(B * S, heads * D) → (B, heads, S, D), a view."""
    return x_NM.view(-1, columns, x_NM.shape[1] // width, width).transpose(1, 2)


def joined(x_BHSD: Tensor) -> Tensor:
    """(B, heads, S, D) → (B * S, heads * D)."""
    return x_BHSD.transpose(1, 2).flatten(2).flatten(0, 1)


def rotate(x_BHSD: Tensor, cos_B1SD: Tensor, sin_B1SD: Tensor, out: Tensor) -> Tensor:
    """Rotary positions: with x = (a, b) in halves, (a cos - b sin, b cos + a sin)."""
    torch.mul(x_BHSD, cos_B1SD, out=out)
    (a, b), (sin_a, sin_b) = x_BHSD.chunk(2, dim=-1), sin_B1SD.chunk(2, dim=-1)
    first, second = out.chunk(2, dim=-1)
    first.addcmul_(b, sin_a, value=-1)
    second.addcmul_(a, sin_b)
    return out


def rotate_back(grad_BHSD: Tensor, cos_B1SD: Tensor, sin_B1SD: Tensor) -> Tensor:
    """The gradient of what `rotate` was given, as (B * S, heads * D)."""
    B, heads_, S, D = grad_BHSD.shape
    back_BSHD = grad_BHSD.new_empty(B, S, heads_, D)
    out = torch.mul(grad_BHSD, cos_B1SD, out=back_BSHD.transpose(1, 2))
    (a, b), (sin_a, sin_b) = grad_BHSD.chunk(2, dim=-1), sin_B1SD.chunk(2, dim=-1)
    first, second = out.chunk(2, dim=-1)
    first.addcmul_(b, sin_b)
    second.addcmul_(a, sin_a, value=-1)
    return back_BSHD.view(B * S, heads_ * D)


def scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Products of matrices times a number, without a pass for it."""
    out = a.new_empty(len(a), a.shape[1], b.shape[2])
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


def norm(x: Tensor, layer: Any) -> tuple[Tensor, Tensor]:
    """RMSNorm (…, d), and each column's scale (…, 1) in fp32; the sum of squares in one pass over the input."""
    wide = x.float()
    scale = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(layer.variance_epsilon).rsqrt_().unsqueeze(-1)
    return (wide * scale).to(x.dtype).mul_(layer.weight), scale


def norm_back(through: Tensor, grad: Tensor, x: Tensor, scale: Tensor, layer: Any) -> Tensor:
    """With g the norm's gradient times its weight and s the scale: through + s g - x s³ mean(g x).

    It writes into `grad`, which nobody reads again, and adds what passes the norm by. `lean_mlp_norm.py` has the
    formula for a norm by itself, whose tensors are autograd's and may not be written to.
    """
    wide, grad = x.float(), grad.mul_(layer.weight).float()
    share = torch.linalg.vecdot(grad, wide).unsqueeze(-1).mul_(scale**3).div_(-x.shape[-1])
    return torch.addcmul(through.float(), grad, scale).addcmul_(wide, share).to(x.dtype)


def softmax_back(grad: Tensor, weights: Tensor) -> Tensor:
    """The gradient of a softmax's scores from that of its weights, which are in fp32."""
    return torch._softmax_backward_data(grad.float(), weights, -1, torch.float32).to(grad.dtype)
