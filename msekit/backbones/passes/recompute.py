"""Gradient checkpointing: a layer's activations are computed again in the backward pass instead of kept."""

from __future__ import annotations

from functools import partial

from torch import nn

from msekit.backbones.passes.agree import decoder_layers
from msekit.errors import MsekitError


def _recompute_layers(model: nn.Module) -> None:
    """Gradient checkpointing that, unlike transformers' own switch, works in eval mode (no dropout may wake up).

    The last layer is left alone: what it keeps is used as soon as the backward pass begins.
    """
    from torch.utils.checkpoint import checkpoint

    layers = decoder_layers(model)
    if not layers:
        raise MsekitError("this architecture has no layers that can be recomputed", fix="Use checkpointing off.")
    for layer in layers[:-1]:
        layer.recomputed = True  # type: ignore[assignment]
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
