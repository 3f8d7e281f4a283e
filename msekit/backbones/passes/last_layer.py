"""The last decoder layer, computed only where its output is read: at the columns whose logits are wanted.

The other columns give their keys and values alone; their queries, attention outputs and MLP reach nothing. So within
`Backbone.logits` those parts are given the last columns and leave zeros in front: nearly a layer's share of a pass. The
weights, their names and what the model computes for anyone else stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.backbones.passes.agree import agree, decoder_layers
from msekit.backbones.quantise import mixes_columns

PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""What works on every column by itself, as far as a layer has it under these names."""


class LastLayer:
    """Shortens a model's last decoder layer within `shortened`.

    Args:
        model: The frozen transformers model; its parts' `forward` is wrapped for good.
    """

    def __init__(self, model: nn.Module) -> None:
        self.columns: int | None = None
        """How many last columns of the running pass are read; None for all."""
        layers = decoder_layers(model)
        modules = dict(layers[-1].named_modules()) if layers and not mixes_columns(model) else {}
        for part in (modules[name] for name in PARTS if name in modules):
            part.forward = partial(self._forward, part.forward)

    def _forward(self, compute: Callable[..., Tensor], hidden_BSd: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.columns is None:
            return compute(hidden_BSd, *args, **kwargs)
        read_BCd = compute(hidden_BSd[:, -self.columns :].contiguous(), *args, **kwargs)
        return F.pad(read_BCd, (0, 0, hidden_BSd.shape[1] - self.columns, 0))

    @contextmanager
    def shortened(self, columns: int) -> Iterator[None]:
        """Within, only so many last columns are computed."""
        self.columns = columns
        try:
            yield
        finally:
            self.columns = None

    @torch.no_grad()
    def works(self, logits: Callable[[], Tensor], columns: int) -> bool:
        """Whether it leaves an architecture's logits of the last columns as they are. The one place to fall back."""
        plain = logits()
        try:
            with self.shortened(columns):
                return agree(logits(), plain)
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
