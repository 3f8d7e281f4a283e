"""Qwen-1 checkpoints (1.8B, 7B, 14B, 72B) → the Qwen2 architecture, exactly; and their tokenizer.

The two architectures compute the same for sequences up to `seq_length`. Beyond it the original scales its attention
(dynamic NTK, log-n), which Qwen2 has not: `seq_length` is therefore the longest that is accepted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from msekit.backbones.checkpoints.formats import Format, refuse_layout
from msekit.errors import MsekitError

RANK_FILE = "qwen.tiktoken"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
"""Special tokens, numbered on from the last rank."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What text is cut into before merging (the tokenizer's published pattern)."""


class Qwen1ForCausalLM(Qwen2ForCausalLM):
    """Qwen2, told of Qwen-1's names."""


def native_config(raw: dict[str, Any]) -> Qwen2Config:
    """Qwen-1's config.json → Qwen2's.

    Raises:
        MsekitError: A field says another layout than the published one.
    """
    width = raw["hidden_size"] // raw["num_attention_heads"]
    wanted = {"no_bias": True, "rotary_pct": 1.0, "scale_attn_weights": True, "kv_channels": width}
    refuse_layout(raw, wanted)
    return Qwen2Config(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"] // 2,  # the published figure counts both halves of the gated MLP
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=raw["num_attention_heads"],
        num_key_value_heads=raw["num_attention_heads"],
        max_position_embeddings=raw["seq_length"],
        rms_norm_eps=raw["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": float(raw["rotary_emb_base"])},
        initializer_range=raw.get("initializer_range", 0.02),
    )


def published_tensors(raw: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Qwen-1 checkpoint and its shape, by config.json."""
    d, f = raw["hidden_size"], raw["intermediate_size"] // 2
    layer = {
        "ln_1.weight": (d,),
        "attn.c_attn.weight": (3 * d, d),
        "attn.c_attn.bias": (3 * d,),
        "attn.c_proj.weight": (d, d),
        "ln_2.weight": (d,),
        "mlp.w1.weight": (f, d),
        "mlp.w2.weight": (f, d),
        "mlp.c_proj.weight": (d, f),
    }
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (raw["vocab_size"], d)}
    for number in range(raw["num_hidden_layers"]):
        shapes |= {f"transformer.h.{number}.{name}": shape for name, shape in layer.items()}
    return shapes | {"transformer.ln_f.weight": (d,), "lm_head.weight": (raw["vocab_size"], d)}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Qwen-1's tokenizer from its rank file, token for token the original's.

    As there, text is normalised first (NFC), and special tokens written out in a text are read as such.

    Raises:
        MsekitError: No rank file, or a damaged one.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    ranks = read_ranks(folder / RANK_FILE)
    vocabulary = {_letters(token): rank for token, rank in ranks.items()}
    # a token that stands in the vocabulary whole is taken before any merging, as tiktoken does
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=list(_merges(ranks)), ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # `normalized`: looked for after NFC, which can change the bracket that ends one
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=True) for token in SPECIAL])
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(len(ranks), len(ranks) + len(SPECIAL)))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def read_ranks(path: Path) -> dict[bytes, int]:
    """A tiktoken rank file: token → rank, counted from 0 without gaps.

    Raises:
        MsekitError: The file is absent or damaged.
    """
    try:
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (OSError, ValueError, binascii.Error) as error:
        raise MsekitError(f"the tokenizer's rank file cannot be read: {error}", where=path) from error
    single = {bytes([byte]) for byte in range(256)}
    if sorted(ranks.values()) != list(range(len(ranks))) or not single <= ranks.keys():
        raise MsekitError("the tokenizer's rank file is damaged: ranks or single bytes are missing", where=path)
    return ranks


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[str, str]]:
    """Every way to put a token together from two others, the lowest rank first: what tiktoken looks up pair by pair."""
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in splits if pair[0] in ranks and pair[1] in ranks]
        for left, right in sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]])):
            yield _letters(left), _letters(right)


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, which byte-level vocabularies are written in."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_LETTER = _byte_letters()


def _letters(token: bytes) -> str:
    return "".join(_LETTER[byte] for byte in token)


QWEN1 = Format(
    model_class=Qwen1ForCausalLM,
    stock_class="Qwen2ForCausalLM",
    native_config=native_config,
    tensors=published_tensors,
    head="lm_head.weight",
    optional=(),
    renamings=(
        (r"^transformer\.wte\.", "model.embed_tokens."),
        (r"^transformer\.ln_f\.", "model.norm."),
        (r"^transformer\.h\.", "model.layers."),
        (r"\.ln_1\.", ".input_layernorm."),
        (r"\.ln_2\.", ".post_attention_layernorm."),
        (r"\.attn\.c_proj\.", ".self_attn.o_proj."),
        (r"\.mlp\.w1\.", ".mlp.up_proj."),  # Qwen-1: c_proj(w1(x) * silu(w2(x)))
        (r"\.mlp\.w2\.", ".mlp.gate_proj."),
        (r"\.mlp\.c_proj\.", ".mlp.down_proj."),
    ),
    fused=".attn.c_attn.",
    tokenizer=load_tokenizer,
).register()
