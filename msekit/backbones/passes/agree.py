"""Whether a shorter way computes what the plain one does, and where a decoder's layers are."""

from __future__ import annotations

import logging
import traceback
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from msekit.backbones.sequence import Pass, Sequence
from msekit.errors import MsekitError

_LOGGER = logging.getLogger("msekit")
APART = 1e-4
"""Largest distance of two ways in fp32, as a share of the length: sums in another order are 1e-6 apart at the sizes of
a trial, and what an architecture reads otherwise at least 1e-2."""
APART_AS_LOADED = 1e-3
"""The same for a model's own weights in fp32, of many layers, where no twin of it can be made."""


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, from the first to the last; empty where an architecture does not mark them."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def value_and_gradient(compute: Pass, sequence: Sequence) -> tuple[Tensor, Tensor]:
    """Logits (B, answers, V), and the gradient (B, S, d) of a random sum of them."""
    with torch.inference_mode(False), torch.enable_grad():
        x_BSd = sequence.embeddings.detach().clone().requires_grad_()
        logits = compute(replace(sequence, embeddings=x_BSd))
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), x_BSd)
    return logits.detach(), gradient


def difference(mine: tuple[Tensor, Tensor], plain: tuple[Tensor, Tensor], most: float = APART) -> str | None:
    """Why a way with these logits and gradient is not the plain way; None where only rounding is between them."""
    for what, ours, theirs in zip(("logits", "gradient"), mine, plain, strict=True):
        apart = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs)
        if not apart <= most:  # what is not a number is no agreement
            return f"in a trial in fp32 its {what} came out otherwise, {apart:.1e} of their length apart"
    return None


def said(error: Exception) -> str:
    """Why a trial broke off, in one line of ours, and in brackets where; what its code says is for --debug."""
    if isinstance(error, MsekitError):
        return str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "there is too little memory for a trial"
    _LOGGER.debug("a trial broke off", exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"the code of its architecture does not take what a trial gives it{at}"
