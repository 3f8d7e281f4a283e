"""A checkpoint of a published shape with random weights, in the format it is published in.

    python -m msekit.testing.random_checkpoint qwen-1.8b FOLDER
    python -m msekit.testing.random_checkpoint chatglm3-6b FOLDER --layers 4

Speed and memory do not depend on the values. Tensors are drawn and written shard by shard, so that a shard is the most
that is ever in memory. The tokenizer files are made up as well, with the published number of tokens.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import struct
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch

from msekit.backbones.checkpoints.known_formats import format_of

AUTO_MAP = {"AutoConfig": "configuration_published.Config", "AutoModelForCausalLM": "modeling_published.Model"}
"""As in the published repositories, whose code nobody reads."""

QWEN1: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": AUTO_MAP,
    "model_type": "qwen",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "kv_channels": 128,
    "vocab_size": 151936,
    "seq_length": 8192,
    "max_position_embeddings": 8192,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "layer_norm_epsilon": 1e-6,
    "no_bias": True,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "torch_dtype": "bfloat16",
}
CHATGLM3: dict[str, Any] = {
    "architectures": ["ChatGLMModel"],
    "auto_map": AUTO_MAP,
    "model_type": "chatglm",
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "num_layers": 28,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "padded_vocab_size": 65024,
    "seq_length": 32768,
    "layernorm_epsilon": 1e-5,
    "rmsnorm": True,
    "post_layer_norm": True,
    "original_rope": True,
    "apply_residual_connection_post_layernorm": False,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float16",
}
LLAMA2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float16",
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen-1.8b": QWEN1,
    "qwen-7b": QWEN1
    | {"hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32}
    | {"num_attention_heads": 32},
    "chatglm3-6b": CHATGLM3,
    "llama2-7b": LLAMA2,
}


def write_checkpoint(
    folder: Path, raw: dict[str, Any], *, seed: int = 0, shard_bytes: int = 1 << 30, binary: bool = False
) -> None:
    """Write config, sharded random weights with their index, and tokenizer files.

    Args:
        folder: Where to; made if needed.
        raw: config.json as published.
        seed: Of the weights.
        shard_bytes: Largest size of a weight file.
        binary: PyTorch `.bin` shards instead of safetensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(raw)
    if raw.get("tie_word_embeddings"):
        shapes.pop(next(name for name in shapes if name in ("lm_head.weight", "transformer.output_layer.weight")))
    dtype = getattr(torch, raw["torch_dtype"])
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = shard_bytes
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = shape
        room -= size
    generator = torch.Generator().manual_seed(seed)
    stem, suffix = ("pytorch_model", "bin") if binary else ("model", "safetensors")
    index: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}"
        write_shard(folder / file, {name: draw(name, shape, dtype, generator) for name, shape in names.items()})
        index |= dict.fromkeys(names, file)
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    (folder / f"{stem}.{suffix}.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    )
    TOKENIZERS[raw["model_type"]](folder, raw)
    (folder / "config.json").write_text(json.dumps(raw, indent=1))


def tensor_shapes(raw: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published tensors."""
    if published := format_of(raw):
        return published.tensors(raw)
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**raw)
    with torch.device("meta"):
        return {
            name: tuple(tensor.shape) for name, tensor in AutoModelForCausalLM.from_config(config).state_dict().items()
        }


def draw(name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Norms near 1, matrices that keep the size of what they multiply, so that nothing vanishes or explodes."""
    values = torch.randn(shape, generator=generator, dtype=torch.float32)
    if len(shape) == 1:
        values = values * 0.1 + (0.0 if name.endswith("bias") else 1.0)
    elif name.split(".")[-2] in ("wte", "word_embeddings", "embed_tokens"):
        values = values * 0.5
    else:
        values /= math.sqrt(shape[1])
    return values.to(dtype)


def write_shard(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """One weight file, of the kind that its name says."""
    if file.suffix == ".bin":
        torch.save(tensors, file)
    else:
        from safetensors.torch import save_file

        save_file(tensors, file, metadata={"format": "pt"})


def write_ranks(folder: Path, raw: dict[str, Any]) -> None:
    """A `qwen.tiktoken` for the vocabulary: single bytes, then pairs, then triples."""
    specials = 208
    real = raw["vocab_size"] if raw["vocab_size"] < 1024 else 151643 + specials  # the published one has padding rows
    tokens = (bytes(letters) for length in (1, 2, 3) for letters in product(range(256), repeat=length))
    lines = (b"%s %d\n" % (base64.b64encode(next(tokens)), rank) for rank in range(real - specials))
    (folder / "qwen.tiktoken").write_bytes(b"".join(lines))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "QWenTokenizer", "model_max_length": 8192}')


def write_pieces(folder: Path, raw: dict[str, Any]) -> None:
    """A sentencepiece `tokenizer.model` of ChatGLM's kind: bytes, then letters, pairs and triples of them."""
    specials = 9
    room = raw["padded_vocab_size"] if raw["padded_vocab_size"] < 1024 else 64789 + specials
    pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)),
    ]
    letters = "▁" + "etaoinshrdlucmfwypvbgkjqxz" + "ETAOINSHRDLUCMFWYPVBGKJQXZ" + "+-.,!?0123456789"
    normal = ("".join(parts) for length in (1, 2, 3) for parts in product(letters, repeat=length))
    pieces += [(text, -float(number), 1) for number, text in enumerate(islice(normal, room - specials - len(pieces)))]
    message = b"".join(
        _field(1, _field(1, text.encode()) + _float(2, score) + _number(3, kind)) for text, score, kind in pieces
    )
    trainer = _number(3, 2) + _number(35, 1)  # BPE, byte fallback
    normalizer = _field(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)
    (folder / "tokenizer.model").write_bytes(message + _field(2, trainer) + _field(3, normalizer))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ChatGLMTokenizer", "padding_side": "left"}')


def write_byte_tokenizer(folder: Path, raw: dict[str, Any]) -> None:
    """A byte-level tokenizer, as `tiny-llama` has."""
    import shutil

    from msekit.backbones.checkpoints.tiny import tiny_llama_folder

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_llama_folder() / name, folder / name)


TOKENIZERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "qwen": write_ranks,
    "chatglm": write_pieces,
    "llama": write_byte_tokenizer,
}


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="fewer layers than published")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-mb", type=int, default=1024)
    arguments = parser.parse_args()
    raw = dict(SHAPES[arguments.shape])
    if arguments.layers:
        raw["num_layers" if raw["model_type"] == "chatglm" else "num_hidden_layers"] = arguments.layers
    binary = raw["model_type"] == "chatglm"
    write_checkpoint(arguments.folder, raw, seed=arguments.seed, shard_bytes=arguments.shard_mb << 20, binary=binary)
    print(f"{arguments.folder}: {sum(file.stat().st_size for file in arguments.folder.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
