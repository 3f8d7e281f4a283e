"""The published formats that msekit converts: one line each."""

from __future__ import annotations

from typing import Any

from msekit.backbones.checkpoints.formats import Format


def format_of(raw: dict[str, Any]) -> Format | None:
    """The published format of a checkpoint, by its config.json; None where transformers reads it by itself."""
    from msekit.backbones.checkpoints.chatglm3 import CHATGLM3
    from msekit.backbones.checkpoints.qwen1 import QWEN1

    return {"qwen": QWEN1, "chatglm": CHATGLM3}.get(str(raw.get("model_type")))
