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

from msekit.backbones.passes.agree import Pass, decoder_layers
from msekit.backbones.passes.switch import Forward, Switch
from msekit.backbones.quantise import mixes_columns
from msekit.backbones.sequence import Sequence

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
    """Shortens a model's last decoder layer in a pass.

    Args:
        model: The frozen transformers model, without an obstacle.
    """

    def __init__(self, model: nn.Module) -> None:
        self.columns = 0
        """How many last columns of the running pass are read."""
        self._switch = Switch()
        modules = dict(decoder_layers(model)[-1].named_modules())
        for part in (modules[name] for name in PARTS if name in modules):
            self._switch.put_over(part, lambda inner: partial(self._forward, inner))

    def _forward(self, compute: Forward, hidden_BSd: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        read_BCd = compute(hidden_BSd[:, -self.columns :].contiguous(), *args, **kwargs)
        # (B, C, d) → (B, S, d): zeros where nothing is read
        return F.pad(read_BCd, (0, 0, hidden_BSd.shape[1] - self.columns, 0))

    def run(self, compute: Pass, sequence: Sequence) -> Tensor:
        """A pass whose last layer is computed at the columns that are read."""
        self.columns, self._switch.on = sequence.answers, True
        try:
            return compute(sequence)
        finally:
            self._switch.on = False
