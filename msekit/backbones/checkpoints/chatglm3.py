"""ChatGLM3 checkpoints (and ChatGLM2's, of the same layout) → the GLM architecture, exactly.

The tokenizer is in `glm_tokenizer.py`.
"""

from __future__ import annotations

from typing import Any

from transformers import GlmConfig, GlmForCausalLM

from msekit.backbones.checkpoints.formats import Format, refuse_layout
from msekit.backbones.checkpoints.glm_tokenizer import load_tokenizer
from msekit.errors import MsekitError

_LAYOUT = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "original_rope": True,
    "multi_query_attention": True,
    "apply_residual_connection_post_layernorm": False,
    "add_bias_linear": False,
}
_CHATGLM2_RATIO = 16


class ChatGLM3ForCausalLM(GlmForCausalLM):
    """GLM, told of ChatGLM3's names."""

    _keys_to_ignore_on_load_unexpected = (r"rotary_pos_emb\.inv_freq",)


def native_config(raw: dict[str, Any]) -> GlmConfig:
    """ChatGLM3's config.json → GLM's. GlmConfig's own defaults are GLM-4's, so every field is given.

    Raises:
        MsekitError: A field says another layout than the published one.
    """
    refuse_layout(raw, _LAYOUT)
    if "multi_query_group_num" not in raw:  # ChatGLM-6B of the first generation bears the same model type
        raise MsekitError("config.json has no multi_query_group_num: only ChatGLM2 and 3 can be converted")
    for key in ("pre_seq_len", "quantization_bit"):
        if raw.get(key):
            raise MsekitError(f"config.json has {key} {raw[key]}: a tuned or quantised checkpoint cannot be converted")
    if raw.get("rope_ratio") == _CHATGLM2_RATIO:  # ChatGLM2-6B-32k: its code divides positions by this figure
        raise MsekitError("rope_ratio 16 is ChatGLM2's way of stretching positions, which GLM does not have")
    heads = raw["num_attention_heads"]
    return GlmConfig(
        vocab_size=raw["padded_vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["ffn_hidden_size"],
        num_hidden_layers=raw["num_layers"],
        num_attention_heads=heads,
        num_key_value_heads=raw["multi_query_group_num"],
        head_dim=_head_width(raw),
        max_position_embeddings=raw["seq_length"],
        rms_norm_eps=raw["layernorm_epsilon"],
        attention_bias=raw["add_qkv_bias"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0 * raw.get("rope_ratio", 1),
            "partial_rotary_factor": 0.5,
        },
        pad_token_id=raw.get("pad_token_id", 0),
        eos_token_id=raw.get("eos_token_id", 2),
        bos_token_id=None,
    )


def published_tensors(raw: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a ChatGLM3 checkpoint that holds weights, and its shape, by config.json."""
    d, f, width = raw["hidden_size"], raw["ffn_hidden_size"], _head_width(raw)
    queries = raw["num_attention_heads"] * width
    fused = queries + 2 * raw["multi_query_group_num"] * width
    layer = {
        "input_layernorm.weight": (d,),
        "self_attention.query_key_value.weight": (fused, d),
        **({"self_attention.query_key_value.bias": (fused,)} if raw["add_qkv_bias"] else {}),
        "self_attention.dense.weight": (d, queries),
        "post_attention_layernorm.weight": (d,),
        "mlp.dense_h_to_4h.weight": (2 * f, d),
        "mlp.dense_4h_to_h.weight": (d, f),
    }
    embedding = (raw["padded_vocab_size"], d)
    shapes: dict[str, tuple[int, ...]] = {"transformer.embedding.word_embeddings.weight": embedding}
    for number in range(raw["num_layers"]):
        shapes |= {f"transformer.encoder.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes | {
        "transformer.encoder.final_layernorm.weight": (d,),
        "transformer.output_layer.weight": embedding,
    }


def _head_width(raw: dict[str, Any]) -> int:
    return raw.get("kv_channels") or raw["hidden_size"] // raw["num_attention_heads"]


CHATGLM3 = Format(
    model_class=ChatGLM3ForCausalLM,
    stock_class="GlmForCausalLM",
    native_config=native_config,
    tensors=published_tensors,
    head="transformer.output_layer.weight",
    optional=("transformer.rotary_pos_emb.inv_freq",),
    renamings=(
        (r"^transformer\.embedding\.word_embeddings\.", "model.embed_tokens."),
        (r"^transformer\.output_layer\.", "lm_head."),
        (r"^transformer\.encoder\.final_layernorm\.", "model.norm."),
        (r"^transformer\.encoder\.layers\.", "model.layers."),
        (r"\.self_attention\.dense\.", ".self_attn.o_proj."),
        (r"\.mlp\.dense_h_to_4h\.", ".mlp.gate_up_proj."),  # gate above up in both
        (r"\.mlp\.dense_4h_to_h\.", ".mlp.down_proj."),
    ),
    fused=".self_attention.query_key_value.",
    tokenizer=load_tokenizer,
).register()
