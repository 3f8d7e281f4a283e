"""Gradient checkpointing: a layer's activations are computed again in the backward pass instead of kept."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from msekit.backbones.passes.switch import Switch
from msekit.errors import MsekitError


def recomputed(layers: list[nn.Module]) -> list[bool]:
    """Which of a decoder's layers are recomputed: all but the last, whose activations are used as soon as the backward
    pass begins.

    Raises:
        MsekitError: There are none.
    """
    if not layers:
        raise MsekitError("this architecture has no layers that can be recomputed", fix="Use checkpointing off.")
    return [True] * (len(layers) - 1) + [False]


def recompute(layers: list[nn.Module]) -> None:
    """Let layers be recomputed. Unlike transformers' own switch it works in eval mode (no dropout may wake up)."""
    switch = Switch(on=True)
    for layer, again in zip(layers, recomputed(layers), strict=True):
        if again:
            switch.put_over(layer, lambda inner: partial(checkpoint, inner, use_reentrant=False))
