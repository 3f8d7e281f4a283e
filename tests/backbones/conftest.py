"""Random checkpoints in the published formats, made by the script that also makes full-size ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from msekit.testing import random_checkpoint

SMALL = {"vocab_size": 259, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA_LIKE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TINY_QWEN1 = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "vocab_size": 512,
    "torch_dtype": "float32",
}
TINY_CHATGLM3 = {
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "num_layers": 3,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "padded_vocab_size": 512,
    "torch_dtype": "float32",
}


@pytest.fixture(scope="session")
def make_backbone() -> ModuleType:
    """Random checkpoints of any size."""
    return random_checkpoint


@pytest.fixture
def published(make_backbone: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """Make a tiny checkpoint: published("qwen1" or "chatglm3", seed=…, binary=…, field=value, …) → its folder."""

    def make(kind: str, seed: int = 0, binary: bool | None = None, **fields: Any) -> Path:
        published_fields, tiny = {
            "qwen1": (make_backbone.QWEN1, TINY_QWEN1),
            "chatglm3": (make_backbone.CHATGLM3, TINY_CHATGLM3),
        }[kind]
        folder = tmp_path / f"{kind}-{seed}"
        make_backbone.write_checkpoint(
            folder,
            published_fields | tiny | fields,
            seed=seed,
            shard_bytes=200_000,
            binary=kind == "chatglm3" if binary is None else binary,
        )
        return folder

    return make


@pytest.fixture
def name_of(published: Callable[..., Path], tmp_path: Path) -> Callable[[str], str]:
    """Where a tiny backbone of each kind lies."""

    def made(kind: str) -> str:
        if kind == "tiny-llama":
            return kind
        if kind in ("qwen1", "chatglm3"):
            return str(published(kind))
        import torch
        import transformers

        from msekit.backbones.checkpoints.tiny import tiny_llama_folder

        torch.manual_seed(0)
        sizes = {"n_embd": 64, "n_layer": 3, "n_head": 4} if kind == "gpt2" else LLAMA_LIKE
        config = transformers.AutoConfig.for_model(kind, **SMALL, **sizes)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / kind)
        for file in tiny_llama_folder().glob("tokenizer*"):
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
        return str(tmp_path / kind)

    return made
