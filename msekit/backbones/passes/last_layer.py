"""The last decoder layer, computed only where its output is read: at the columns whose logits are wanted.

The other columns give their keys and values alone; their queries, attention outputs and MLP reach nothing. So within
`Backbone.logits` those parts are given the last columns and leave zeros in front: nearly a layer's share of a pass. The
weights, their names and what the model computes for anyone else stay as they are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.switch import Forward, Over
from msekit.backbones.quantise import mixes_columns

PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""What works on every column by itself, as far as a layer has it under these names."""


def obstacle(model: nn.Module) -> str | None:
    """Why a model's last layer cannot be shortened, as far as its structure tells."""
    layers = decoder_layers(model)
    if not layers:
        return "the architecture does not mark its decoder layers"
    if not set(PARTS) & set(dict(layers[-1].named_modules())):
        return f"its last layer has none of {', '.join(PARTS)}"
    return "in 8 bit on a GPU a column's numbers depend on the others'" if mixes_columns(model) else None


class LastLayer:
    """The shortened parts of a model's last decoder layer.

    Args:
        model: The frozen transformers model, without an obstacle.
    """

    def __init__(self, model: nn.Module) -> None:
        self.columns = 0
        """How many last columns of the running pass are read."""
        modules = dict(decoder_layers(model)[-1].named_modules())
        parts = [modules[name] for name in PARTS if name in modules]
        self.forwards: list[Over] = [(part, lambda inner: partial(self._forward, inner)) for part in parts]

    def _forward(self, compute: Forward, hidden_BSd: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = compute(hidden_BSd[:, -self.columns :].contiguous(), *args, **kwargs)
        read_BCd, *others = given if isinstance(given, tuple) else (given,)  # beside it, how experts were chosen
        # (B, C, d) → (B, S, d): zeros where nothing is read
        padded_BSd = F.pad(read_BCd, (0, 0, hidden_BSd.shape[1] - self.columns, 0))
        return (padded_BSd, *others) if isinstance(given, tuple) else padded_BSd
