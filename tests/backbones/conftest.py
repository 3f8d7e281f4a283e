"""Random checkpoints in the published formats, made by the script that also makes full-size ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "make_backbone.py"
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
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_backbone", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
