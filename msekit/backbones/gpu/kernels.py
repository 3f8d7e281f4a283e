"""Triton kernels of a frozen decoder layer, each a single launch: RMSNorm behind a residual, gated activation, rotary.

A program goes over a row, a block of a row, or a head of a column; all compute in fp32. They round where transformers
does, but rotary positions once and not three times. `operators.py` launches them.

Shapes: N rows, d width of the model, F width between an MLP's projections, B batch, S columns, H query heads, G heads
of keys, D width of a head, half = D / 2.
"""

from __future__ import annotations

try:
    import triton.language as tl
    from triton import jit
except ImportError:  # there is none for macOS and Windows, where `fused_layers.obstacle` says so before one is launched
    jit = lambda kernel: kernel  # noqa: E731


@jit
def norm(
    x_ptr, delta_ptr, weight_ptr, sum_ptr, out_ptr, scale_ptr, width, eps, ADDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y = x + delta where it ADDS, else x; of each row of y the norm, weight * y / rms(y), and 1 / rms(y)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * width + column, mask=inside, other=0.0)
    if ADDS:
        delta = tl.load(delta_ptr + row * width + column, mask=inside, other=0.0)
        x = (x.to(tl.float32) + delta.to(tl.float32)).to(x.dtype)
        tl.store(sum_ptr + row * width + column, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + eps)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0)
    normed = (wide * scale).to(x.dtype)
    out = (weight.to(tl.float32) * normed.to(tl.float32)).to(x.dtype)
    tl.store(out_ptr + row * width + column, out, mask=inside)
    tl.store(scale_ptr + row, scale)


@jit
def norm_back(
    grad_ptr, through_ptr, x_ptr, weight_ptr, scale_ptr, out_ptr, width, ADDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """With g the norm's gradient times the weight and s = 1 / rms(y): s g - y s³ mean(g y), and what went through."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * width + column, mask=inside, other=0.0)
    grad = tl.load(grad_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    weighted = grad * tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + row)
    wide = x.to(tl.float32)
    mean = tl.sum(weighted * wide, axis=0) / width
    back = weighted * scale - wide * (mean * scale * scale * scale)
    if ADDS:
        back += tl.load(through_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * width + column, back.to(x.dtype), mask=inside)


@jit
def gated(gate_ptr, up_ptr, out_ptr, gate_row, up_row, width, BLOCK: tl.constexpr):
    """silu(gate) * up, a block of a row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_ptr + row * gate_row + column, mask=inside, other=0.0)
    up = tl.load(up_ptr + row * up_row + column, mask=inside, other=0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    silu = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out_ptr + row * width + column, (silu.to(tl.float32) * up).to(gate.dtype), mask=inside)


@jit
def gated_back(
    grad_ptr, gate_ptr, up_ptr, of_gate_ptr, of_up_ptr, gate_row, up_row, width, BLOCK: tl.constexpr
):  # fmt: skip
    """The gradients of gate and up."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_ptr + row * gate_row + column, mask=inside, other=0.0)
    up = tl.load(up_ptr + row * up_row + column, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    share = 1.0 / (1.0 + tl.exp(-wide))
    of_gate = grad * up * share * (1.0 + wide * (1.0 - share))
    tl.store(of_gate_ptr + row * width + column, of_gate.to(gate.dtype), mask=inside)
    tl.store(of_up_ptr + row * width + column, (grad * wide * share).to(gate.dtype), mask=inside)


@jit
def _turned(x_ptr, out_ptr, at, out_at, cos_ptr, sin_ptr, angle, half, BACK: tl.constexpr, BLOCK: tl.constexpr):
    """One head of one column: (a, b) → (a cos - b sin, b cos + a sin); BACK the gradient of it."""
    place = tl.arange(0, BLOCK)
    inside = place < half
    a = tl.load(x_ptr + at + place, mask=inside, other=0.0)
    b = tl.load(x_ptr + at + half + place, mask=inside, other=0.0).to(tl.float32)
    cos_a = tl.load(cos_ptr + angle + place, mask=inside, other=0.0).to(tl.float32)
    cos_b = tl.load(cos_ptr + angle + half + place, mask=inside, other=0.0).to(tl.float32)
    sin_a = tl.load(sin_ptr + angle + place, mask=inside, other=0.0).to(tl.float32)
    sin_b = tl.load(sin_ptr + angle + half + place, mask=inside, other=0.0).to(tl.float32)
    wide = a.to(tl.float32)
    if BACK:
        first, second = wide * cos_a + b * sin_b, b * cos_b - wide * sin_a
    else:
        first, second = wide * cos_a - b * sin_a, b * cos_b + wide * sin_b
    tl.store(out_ptr + out_at + place, first.to(a.dtype), mask=inside)
    tl.store(out_ptr + out_at + half + place, second.to(a.dtype), mask=inside)


@jit
def rotary(
    q_ptr, k_ptr, q_out_ptr, k_out_ptr, cos_ptr, sin_ptr,
    q_b, q_h, q_s, k_b, k_h, k_s, qo_b, qo_h, qo_s, ko_b, ko_h, ko_s, angle_b, angle_s,
    heads, columns, half, BACK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Queries (B, H, S, D) and keys (B, G, S, D) turned by their columns' angles; BACK the gradient of it."""
    sample, column = tl.program_id(0).to(tl.int64) // columns, tl.program_id(0).to(tl.int64) % columns
    head = tl.program_id(1)
    angle = sample * angle_b + column * angle_s
    if head < heads:
        at, out_at = sample * q_b + head * q_h + column * q_s, sample * qo_b + head * qo_h + column * qo_s
        _turned(q_ptr, q_out_ptr, at, out_at, cos_ptr, sin_ptr, angle, half, BACK, BLOCK)
    else:
        own = head - heads
        at, out_at = sample * k_b + own * k_h + column * k_s, sample * ko_b + own * ko_h + column * ko_s
        _turned(k_ptr, k_out_ptr, at, out_at, cos_ptr, sin_ptr, angle, half, BACK, BLOCK)
