"""Whether a shorter way computes what the plain one does, and where a decoder's layers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    pass


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, from the first to the last; empty where an architecture does not mark them."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


_AGREEMENT = {torch.float32: 1e-3}
"""Largest difference between logits computed in two ways, as a share of their deviation."""


_AGREEMENT_16_BIT = 0.1  # what an architecture misreads is off by the whole deviation


def agree(logits: Tensor, plain: Tensor) -> bool:
    """Whether logits that were computed in a shorter way are, up to rounding, those of the plain one."""
    bound = _AGREEMENT.get(plain.dtype, _AGREEMENT_16_BIT)
    logits, plain = logits.float(), plain.float()
    return bool((logits - plain).abs().max() <= bound * plain.std())
