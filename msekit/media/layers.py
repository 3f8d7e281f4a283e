"""Which of an encoder's layers become features: `last4`, `mean`, `9`, `6-12` or, of pictures, `pooled`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msekit.errors import MsekitError

if TYPE_CHECKING:
    from torch import Tensor

POOLED = "pooled"
"""The one vector of a picture that the encoder itself makes."""
_FORMS = re.compile(r"mean|last\d*|\d+(-\d+)?")


def check_layers(layers: str, modality: str) -> str:
    """The layers, if they can be read.

    Raises:
        MsekitError: They cannot.
    """
    if layers == POOLED and modality == "vision":
        return layers
    if not _FORMS.fullmatch(layers):
        more = f", {POOLED}" if modality == "vision" else ""
        raise MsekitError(f"--layers '{layers}' cannot be read", fix=f"Say last4, mean, 9, 6-12{more}.")
    return layers


def mean_of_layers(states: Sequence[Tensor], layers: str) -> Tensor:
    """The mean over the chosen layers.

    Args:
        states: The embeddings, then the output of each layer, all of one shape.
        layers: See the module's docstring; layer 0 are the embeddings, `mean` are all layers without them.

    Raises:
        MsekitError: The encoder has fewer layers.
    """
    import torch

    count = len(states) - 1
    if layers == "mean":
        first, last = 1, count
    elif layers.startswith("last"):
        first, last = count + 1 - int(layers[4:] or 1), count
    else:
        first, last = (int(part) for part in (layers.split("-") * 2)[:2])
    if not 0 <= first <= last <= count:
        raise MsekitError(f"--layers {layers} is not among the encoder's {count} layers")
    return torch.stack([states[layer].float() for layer in range(first, last + 1)]).mean(dim=0)
