"""BACKBONES: one entry per LLM. Adding one is an entry here; any other causal LM works by its folder or hub id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msekit.errors import MsekitError

SMOLLM2, TINY = "smollm2-135m-1", "tiny-llama-1"
"""Names in the cache of what msekit builds itself; a change of the content needs a new one."""


@dataclass(frozen=True)
class Architecture:
    """Published figures of a decoder with gated MLPs and RMS norms, for commands that load nothing.

    They are compared with the checkpoint whenever it is loaded.
    """

    hidden_size: int
    """Width of the embeddings, d."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    """Width inside the MLP, f: its three matrices are (f, d), (f, d) and (d, f)."""
    vocab_size: int
    """Rows of the embedding matrix, padding rows included."""
    trained_length: int
    """Tokens of the longest sequence that it was trained for."""
    tied: bool = False
    """The LM head is the embedding matrix."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normed, head by head."""
    norms: int = 2
    """Norms of the width d in a layer."""

    @property
    def attention_parameters(self) -> int:
        """Of one layer: the query, key and value projections, the output projection, norms of queries and keys."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        biases = queries + 2 * keys if self.qkv_bias else 0
        norms = 2 * self.head_dim if self.qk_norm else 0
        return self.hidden_size * (2 * queries + 2 * keys) + biases + norms

    @property
    def layer_parameters(self) -> int:
        """Of one layer: attention, MLP and norms."""
        mlp = 3 * self.hidden_size * self.intermediate_size
        return self.attention_parameters + mlp + self.norms * self.hidden_size

    @property
    def parameters(self) -> int:
        """Of the whole model; tied matrices count once."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden_size


@dataclass(frozen=True)
class BackboneEntry:
    """Where an LLM comes from, and the published figures of its architecture."""

    name: str
    architecture: Architecture
    licence: str
    hub: str | None = None
    """Hub model repository; its files' format is told by their `model_type`."""
    gated: bool = False
    """Its licence must be accepted on the hub before it can be downloaded."""
    revision: str | None = None
    """Commit of the hub repository; None for its main branch."""
    stored_bytes: int = 2
    """Bytes per parameter in the published files."""
    built: str | None = None
    """Name in the cache of a checkpoint that is no hub repository: `checkpoints/locate.py` has who builds it."""

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings."""
        return self.architecture.hidden_size

    @property
    def checkpoint_bytes(self) -> int:
        """Size of the published weights."""
        return self.architecture.parameters * self.stored_bytes


def _qwen1(hidden: int, layers: int, heads: int, intermediate: int, vocabulary: int, length: int) -> Architecture:
    return Architecture(hidden, layers, heads, heads, 128, intermediate, vocabulary, length, qkv_bias=True)


def _qwen3(hidden: int, layers: int, heads: int, intermediate: int, tied: bool = True) -> Architecture:
    return Architecture(hidden, layers, heads, 8, 128, intermediate, 151936, 32768, tied=tied, qk_norm=True)


def _gemma3(hidden: int, layers: int, intermediate: int) -> Architecture:
    figures = (hidden, layers, 4, 1, 256, intermediate, 262144, 32768)
    return Architecture(*figures, tied=True, qk_norm=True, norms=4)


_APACHE = "Apache-2.0"
_QWEN25 = {"tied": True, "qkv_bias": True}
_SMALL = (
    BackboneEntry(
        "qwen2.5-0.5b", Architecture(896, 24, 14, 2, 64, 4864, 151936, 32768, **_QWEN25), _APACHE, "Qwen/Qwen2.5-0.5B"
    ),
    BackboneEntry(
        "qwen2.5-1.5b",
        Architecture(1536, 28, 12, 2, 128, 8960, 151936, 131072, **_QWEN25),
        _APACHE,
        "Qwen/Qwen2.5-1.5B",
    ),
    BackboneEntry(
        "qwen2.5-3b",
        Architecture(2048, 36, 16, 2, 128, 11008, 151936, 32768, **_QWEN25),
        "Qwen Research",
        "Qwen/Qwen2.5-3B",
    ),
    BackboneEntry(
        "qwen2.5-7b",
        Architecture(3584, 28, 28, 4, 128, 18944, 152064, 131072, qkv_bias=True),
        _APACHE,
        "Qwen/Qwen2.5-7B",
    ),
    BackboneEntry("qwen3-0.6b", _qwen3(1024, 28, 16, 3072), _APACHE, "Qwen/Qwen3-0.6B-Base"),
    BackboneEntry("qwen3-1.7b", _qwen3(2048, 28, 16, 6144), _APACHE, "Qwen/Qwen3-1.7B-Base"),
    BackboneEntry("qwen3-4b", _qwen3(2560, 36, 32, 9728), _APACHE, "Qwen/Qwen3-4B-Base"),
    BackboneEntry("qwen3-8b", _qwen3(4096, 36, 32, 12288, tied=False), _APACHE, "Qwen/Qwen3-8B-Base"),
    BackboneEntry(
        "llama3.2-1b",
        Architecture(2048, 16, 32, 8, 64, 8192, 128256, 131072, tied=True),
        "Llama 3.2 Community",
        "meta-llama/Llama-3.2-1B",
        gated=True,
    ),
    BackboneEntry(
        "llama3.2-3b",
        Architecture(3072, 28, 24, 8, 128, 8192, 128256, 131072, tied=True),
        "Llama 3.2 Community",
        "meta-llama/Llama-3.2-3B",
        gated=True,
    ),
    BackboneEntry("gemma3-270m", _gemma3(640, 18, 2048), "Gemma", "google/gemma-3-270m", gated=True),
    BackboneEntry("gemma3-1b", _gemma3(1152, 26, 6912), "Gemma", "google/gemma-3-1b-pt", gated=True),
    BackboneEntry(
        "smollm2-360m",
        Architecture(960, 32, 15, 5, 64, 2560, 49152, 8192, tied=True),
        _APACHE,
        "HuggingFaceTB/SmolLM2-360M",
    ),
    BackboneEntry(
        "smollm2-1.7b",
        Architecture(2048, 24, 32, 32, 64, 8192, 49152, 8192, tied=True),
        _APACHE,
        "HuggingFaceTB/SmolLM2-1.7B",
    ),
    BackboneEntry(
        "smollm3-3b",
        Architecture(2048, 36, 16, 4, 128, 11008, 128256, 65536, tied=True),
        _APACHE,
        "HuggingFaceTB/SmolLM3-3B-Base",
    ),
)
"""Today's small ones: the base models, as what is trained here is a continuation of text, not a chat."""

_CONFIG_KEYS = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "tied": "tie_word_embeddings",
}
_TONGYI = "Tongyi Qianwen"
BACKBONES: dict[str, BackboneEntry] = {
    entry.name: entry
    for entry in (
        BackboneEntry("qwen-1.8b", _qwen1(2048, 24, 16, 5504, 151936, 8192), f"{_TONGYI} Research", "Qwen/Qwen-1_8B"),
        BackboneEntry("qwen-7b", _qwen1(4096, 32, 32, 11008, 151936, 8192), _TONGYI, "Qwen/Qwen-7B"),
        BackboneEntry("qwen-14b", _qwen1(5120, 40, 40, 13696, 152064, 2048), _TONGYI, "Qwen/Qwen-14B"),
        BackboneEntry("qwen-72b", _qwen1(8192, 80, 64, 24576, 152064, 32768), _TONGYI, "Qwen/Qwen-72B"),
        BackboneEntry(
            "chatglm3-6b",
            Architecture(4096, 28, 32, 2, 128, 13696, 65024, 32768, qkv_bias=True),
            "ChatGLM3-6B",
            "THUDM/chatglm3-6b-base",
        ),
        BackboneEntry(
            "llama2-7b",
            Architecture(4096, 32, 32, 32, 128, 11008, 32000, 4096),
            "Llama 2 Community",
            "meta-llama/Llama-2-7b-hf",
            gated=True,
        ),
        *_SMALL,
        BackboneEntry(
            "smollm2-135m",
            Architecture(576, 30, 9, 3, 64, 1536, 49152, 8192, tied=True),
            "Apache-2.0",
            stored_bytes=4,
            built=SMOLLM2,
        ),
        BackboneEntry(
            "tiny-llama",
            Architecture(64, 2, 4, 2, 16, 128, 259, 4096),
            "Apache-2.0",
            stored_bytes=4,
            built=TINY,
        ),
    )
}


def canonical_name(backbone: str) -> str:
    """The catalogue name of a backbone that is given by its hub id; anything else as it is."""
    return next((name for name, entry in BACKBONES.items() if entry.hub == backbone), backbone)


def check_architecture(backbone: str, config: Any) -> None:
    """Compare a loaded checkpoint with its catalogue entry, if it has one.

    Args:
        backbone: Catalogue name or hub id; anything else is not compared.
        config: The model's transformers config.

    Raises:
        MsekitError: Naming the figure that differs.
    """
    entry = BACKBONES.get(canonical_name(backbone))
    if entry is None:
        return
    for figure, key in _CONFIG_KEYS.items():
        read, published = getattr(config, key, None), getattr(entry.architecture, figure)
        if read is not None and read != published:
            raise MsekitError(f"the checkpoint of {entry.name} has {key} {read}; published is {published}")
