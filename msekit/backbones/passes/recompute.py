"""Gradient checkpointing: a layer's activations are computed again in the backward pass instead of kept."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from msekit.backbones.passes.switch import Over
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


def recomputing(layers: list[nn.Module]) -> list[Over]:
    """Forwards that recompute. Unlike transformers' own switch they do in eval mode: no dropout may wake up.

    So nothing is drawn that would have to be drawn alike again: no random state is kept, which on a GPU would be read
    and set at every layer.
    """
    once_more = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    again = [layer for layer, is_recomputed in zip(layers, recomputed(layers), strict=True) if is_recomputed]
    return [(layer, lambda inner: partial(once_more, inner)) for layer in again]
