"""Qwen-1 and ChatGLM3 as equations over the published tensors: what the native architectures are compared with.

Shapes: B batch, S sequence, d width, H heads, k width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def logits(raw: dict[str, Any], weights: Weights, ids: Tensor | None, emb: Tensor | None, mask: Tensor) -> Tensor:
    """(B, S) tokens or (B, S, d) embeddings, and a (B, S) mask of real columns → (B, S, V) logits."""
    return {"qwen": _qwen1, "chatglm": _chatglm3}[raw["model_type"]](raw, weights, ids, emb, mask)


def _qwen1(raw: dict[str, Any], w: Weights, ids: Tensor | None, emb: Tensor | None, mask: Tensor) -> Tensor:
    x = w["transformer.wte.weight"][ids] if emb is None else emb
    heads, eps = raw["num_attention_heads"], raw["layer_norm_epsilon"]
    for number in range(raw["num_hidden_layers"]):
        p = f"transformer.h.{number}."
        fused = _norm(x, w[p + "ln_1.weight"], eps) @ w[p + "attn.c_attn.weight"].T + w[p + "attn.c_attn.bias"]
        q, k, v = (_heads(part, heads) for part in fused.chunk(3, dim=-1))
        q, k = (_rotate_halves(part, raw["rotary_emb_base"]) for part in (q, k))
        x = x + _attend(q, k, v, mask) @ w[p + "attn.c_proj.weight"].T
        y = _norm(x, w[p + "ln_2.weight"], eps)
        gate = y @ w[p + "mlp.w2.weight"].T
        x = x + (y @ w[p + "mlp.w1.weight"].T * gate * gate.sigmoid()) @ w[p + "mlp.c_proj.weight"].T
    return _norm(x, w["transformer.ln_f.weight"], eps) @ w.get("lm_head.weight", w["transformer.wte.weight"]).T


def _chatglm3(raw: dict[str, Any], w: Weights, ids: Tensor | None, emb: Tensor | None, mask: Tensor) -> Tensor:
    table = w["transformer.embedding.word_embeddings.weight"]
    x = table[ids] if emb is None else emb
    heads, groups, eps = raw["num_attention_heads"], raw["multi_query_group_num"], raw["layernorm_epsilon"]
    width, base = raw["kv_channels"], 10000 * raw.get("rope_ratio", 1)
    for number in range(raw["num_layers"]):
        p = f"transformer.encoder.layers.{number}."
        fused = _norm(x, w[p + "input_layernorm.weight"], eps) @ w[p + "self_attention.query_key_value.weight"].T
        fused = fused + w.get(p + "self_attention.query_key_value.bias", torch.zeros(1))
        q, k, v = fused.split([heads * width, groups * width, groups * width], dim=-1)
        q, k = _rotate_pairs(_heads(q, heads), base), _rotate_pairs(_heads(k, groups), base)
        k, v = (part.repeat_interleave(heads // groups, dim=1) for part in (k, _heads(v, groups)))
        x = x + _attend(q, k, v, mask) @ w[p + "self_attention.dense.weight"].T
        y = _norm(x, w[p + "post_attention_layernorm.weight"], eps) @ w[p + "mlp.dense_h_to_4h.weight"].T
        gate, up = y.chunk(2, dim=-1)
        x = x + (gate * gate.sigmoid() * up) @ w[p + "mlp.dense_4h_to_h.weight"].T
    return (
        _norm(x, w["transformer.encoder.final_layernorm.weight"], eps)
        @ w.get("transformer.output_layer.weight", table).T
    )


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt() * weight


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, S, H·k) → (B, H, S, k)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _angles(length: int, dims: int, base: float) -> Tensor:
    """(S, dims / 2)."""
    return torch.arange(length)[:, None] * base ** (-torch.arange(0, dims, 2) / dims)


def _rotate_halves(x: Tensor, base: float) -> Tensor:
    """Qwen-1: dimension i turns with dimension i + k/2."""
    a, b = x.chunk(2, dim=-1)
    angles = _angles(x.shape[2], x.shape[3], base)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


def _rotate_pairs(x: Tensor, base: float) -> Tensor:
    """ChatGLM3: neighbours turn together, in the first half of the dimensions alone."""
    turned, rest = x.chunk(2, dim=-1)
    a, b = turned[..., 0::2], turned[..., 1::2]
    angles = _angles(x.shape[2], turned.shape[3], base)
    pairs = torch.stack([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)
    return torch.cat([pairs.flatten(-2), rest], dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Causal attention over real columns; three (B, H, S, k) → (B, S, H·k)."""
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    visible = torch.ones(scores.shape[2:], dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
