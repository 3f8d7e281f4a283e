"""What an LLM's configuration says about its size, without loading a weight.

The decoders with gated MLPs that most LLMs are today are counted from the configuration alone. Any other architecture
is built by transformers without memory for its weights (torch's `meta` device): exact too, but it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msekit.backbones.catalogue import BACKBONES, Architecture, canonical_name
from msekit.errors import MsekitError, brief, nearest
from msekit.json_file import read_json
from msekit.words import reason

WIDTH_KEYS = ("word_embed_proj_dim", "hidden_size", "n_embd", "d_model")
"""Where configurations keep the width of the embeddings; OPT's differs from its hidden size and comes first."""

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_MOST_LAYERS = 1000
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("n_embd", "n_inner", "n_head", "d_model", "ffn_dim"),
)
_AGAIN = "Fetch the checkpoint again."


@dataclass(frozen=True)
class LinearLayer:
    """Linear layers of one size inside the decoder: what 8 and 4 bit are about."""

    inputs: int
    outputs: int
    count: int


@dataclass(frozen=True)
class Shape:
    """Sizes of an LLM as it will be loaded."""

    architecture: Architecture
    linears: tuple[LinearLayer, ...]
    others: int
    """All other parameters: embeddings, LM head where it is not tied, norms, biases."""
    folder: Path | None = None
    """The local checkpoint that it was read from."""

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.others + sum(layer.inputs * layer.outputs * layer.count for layer in self.linears)


def shape_of(backbone: str) -> Shape:
    """The sizes of a backbone.

    Args:
        backbone: Catalogue name, folder with a config.json, or a hub id in the local cache.

    Raises:
        MsekitError: No such backbone is at hand, or its configuration cannot be understood.
    """
    name = canonical_name(backbone)
    if name in BACKBONES:
        return decoder_shape(BACKBONES[name].architecture)
    config = _config_file(backbone)
    try:
        raw = read_json(config, "backbone's configuration", of_another_program=True)
        refuse_absurd_depth(raw, config)
        architecture = architecture_from(raw)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise MsekitError(f"the backbone's configuration cannot be read: {reason(error)}", where=config) from error
    if architecture is None:
        return _built_shape(config.parent)
    shape = decoder_shape(architecture)
    return Shape(shape.architecture, shape.linears, shape.others, config.parent)


def text_width(backbone: str) -> int:
    """Width of a backbone's embeddings, from the catalogue or from its configuration file; nothing is downloaded.

    Args:
        backbone: Catalogue name, folder with a config.json, path of one, or a hub id in the local cache.

    Raises:
        MsekitError: No such backbone is at hand, or its configuration does not say the width.
    """
    name = canonical_name(backbone)
    if name in BACKBONES:
        return BACKBONES[name].hidden_size
    path = _config_file(backbone)
    config = read_json(path, "backbone's configuration", of_another_program=True)
    top = config if isinstance(config, dict) else {}
    inner = top.get("text_config")
    for part in (top, inner if isinstance(inner, dict) else {}):
        for key in WIDTH_KEYS:
            if isinstance(part.get(key), int) and part[key] > 0:
                return int(part[key])
    raise MsekitError(f"the backbone's configuration has none of {', '.join(WIDTH_KEYS)}", where=path)


def decoder_shape(architecture: Architecture) -> Shape:
    """Count a decoder with gated MLPs from its figures."""
    width, mlp = architecture.hidden_size, architecture.intermediate_size
    queries, keys = architecture.heads * architecture.head_dim, architecture.kv_heads * architecture.head_dim
    sizes = ((width, queries, 1), (width, keys, 2), (queries, width, 1), (width, mlp, 2), (mlp, width, 1))
    linears = tuple(LinearLayer(inputs, outputs, times * architecture.layers) for inputs, outputs, times in sizes)
    inside = sum(layer.inputs * layer.outputs * layer.count for layer in linears)
    return Shape(architecture, linears, architecture.parameters - inside)


def architecture_from(raw: dict[str, Any]) -> Architecture | None:
    """Read a config.json; None for an architecture whose counts are not known by heart.

    Raises:
        KeyError: A key that the model type must have is missing.
    """
    kind = raw["model_type"]
    if kind == "qwen":  # Qwen-1: the printed width is that of gate and up together
        heads = raw["num_attention_heads"]
        return Architecture(
            raw["hidden_size"], raw["num_hidden_layers"], heads, heads, raw["kv_channels"],
            raw["intermediate_size"] // 2, raw["vocab_size"], raw["seq_length"],
            tied=raw["tie_word_embeddings"], qkv_bias=True,
        )  # fmt: skip
    if kind == "chatglm":
        return Architecture(
            raw["hidden_size"], raw["num_layers"], raw["num_attention_heads"], raw["multi_query_group_num"],
            raw["kv_channels"], raw["ffn_hidden_size"], raw["padded_vocab_size"], raw["seq_length"],
            tied=raw["tie_word_embeddings"], qkv_bias=raw["add_qkv_bias"],
        )  # fmt: skip
    if kind not in ("llama", "mistral", "qwen2", "glm"):
        return None
    heads = raw["num_attention_heads"]
    return Architecture(
        raw["hidden_size"],
        raw["num_hidden_layers"],
        heads,
        raw.get("num_key_value_heads") or heads,
        raw.get("head_dim") or raw["hidden_size"] // heads,
        raw["intermediate_size"],
        raw["vocab_size"],
        raw["max_position_embeddings"],
        tied=raw.get("tie_word_embeddings", False),
        qkv_bias=raw.get("attention_bias", kind in ("qwen2", "glm")),
    )


def _built_shape(folder: Path) -> Shape:
    """Any other architecture, built without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    from msekit.backbones.checkpoints.text_part import text_part
    from msekit.backbones.checkpoints.weight_files import read_config

    try:
        part = text_part(folder, read_config(folder))
        config = part[1] if part else AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        text = config.get_text_config()
        heads = text.num_attention_heads
    except MsekitError:
        raise
    except Exception as error:  # whatever an unknown configuration makes transformers raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise MsekitError(
            f"the backbone's configuration cannot be used: {reason}",
            where=folder,
            fix="To train without a plan, set model.checkpointing=off and evaluation.batch_size=16.",
        ) from error
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]
    sizes = [layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1] for layer in layers]
    linears = tuple(LinearLayer(inputs, outputs, 1) for inputs, outputs in sizes)
    inside = sum(layer.weight.numel() for layer in layers)
    architecture = Architecture(
        text.hidden_size,
        text.num_hidden_layers,
        heads,
        getattr(text, "num_key_value_heads", None) or heads,
        getattr(text, "head_dim", None) or text.hidden_size // heads,
        max(max(layer.weight.shape) for layer in layers),
        text.vocab_size,
        getattr(text, "max_position_embeddings", 0),
        tied=bool(config.tie_word_embeddings),
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    return Shape(architecture, linears, total - inside, folder)


def _config_file(backbone: str) -> Path:
    """The configuration in a folder, by its own path, or of a hub model that was downloaded before."""
    from msekit.backbones.checkpoints.kinds import gguf_at

    path = Path(backbone)
    if (gguf := gguf_at(path)) is not None:
        from msekit.backbones.checkpoints.locate import checkpoint_folder

        return checkpoint_folder(str(gguf)) / "config.json"
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise MsekitError("the backbone's folder has no config.json", where=path)
        return path / "config.json"
    if backbone.count("/") != 1 or path.suffix == ".json" or backbone.startswith((".", "/", "~")):
        raise MsekitError(
            f"unknown backbone '{backbone}'", fix=nearest(backbone, BACKBONES, "A folder or hub id works too.")
        )
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(backbone, "config.json")
    except HFValidationError as error:
        raise MsekitError(f"'{backbone}' is neither a folder nor a hub id", fix=str(error)) from error
    if not isinstance(cached, str):
        raise MsekitError(
            f"'{backbone}' is not in the local Hugging Face cache, and this command downloads nothing",
            fix=f"Run `hf download {backbone} config.json`, or give a folder.",
        )
    return Path(cached)


def refuse_absurd_depth(raw: dict[str, Any], where: Path) -> None:
    """Refuse a configuration of more layers than any LLM has: transformers would build them, for minutes or hours.

    Raises:
        MsekitError: It states so many.
    """
    for key, value in _stated(raw, _LAYERS):
        if value > _MOST_LAYERS:
            raise MsekitError(f"the configuration states {brief(value)} layers, as {key}", where=where, fix=_AGAIN)


def refuse_absurd_sizes(raw: dict[str, Any], shapes: Iterable[tuple[int, ...]], folder: Path) -> None:
    """Refuse a configuration of layers or sizes that no tensor of the checkpoint has: transformers would make them.

    Args:
        raw: The configuration.
        shapes: Of the tensors beside it.
        folder: The checkpoint.

    Raises:
        MsekitError: The first such key.
    """
    refuse_absurd_depth(raw, folder)
    largest = max((size for shape in shapes for size in shape), default=0)
    for key, value in _stated(raw, _SIZES):
        if value > largest:
            what = f"the configuration states {key} {brief(value)}, and no tensor of the checkpoint is so large"
            raise MsekitError(what, where=folder, fix=_AGAIN)


def _stated(raw: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    inner = raw.get("text_config") if isinstance(raw, dict) else None
    for part in (raw, inner):
        if isinstance(part, dict):
            yield from ((key, part[key]) for key in keys if isinstance(part.get(key), int))
