"""What a configuration merely states is not made: layers and sizes that no LLM or no tensor beside it has. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError, brief

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_MOST_LAYERS = 1000
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("n_embd", "n_inner", "n_head", "d_model", "ffn_dim"),
)
_AGAIN = "Fetch the checkpoint again."


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
