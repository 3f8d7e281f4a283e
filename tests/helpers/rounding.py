"""How far sums in another order may put two ways of the same computation apart: measured, not fixed.

A bound of 1e-5 of the largest value would be a matter of the CPU's units: one rounding of each weight of an LLM moves
some adapters' gradients by 2e-5 of the largest one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from msekit.backbones.backbone import Backbone
from msekit.backbones.passes.choose import PassSettings

LONGEST = 256
"""Terms of the sums in the tests' small LLMs, at most."""


def furthest(some: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
    """The largest difference of each pair."""
    return [float((a - b).abs().max()) for a, b in zip(some, others, strict=True)]


def rounding(backbone: Backbone, compute: Callable[[Backbone], Sequence[Tensor]]) -> list[float]:
    """Bounds for each of the tensors that are computed with a backbone.

    Another order of n terms is like operands that are off by about sqrt(n) roundings. What one rounding of each of the
    LLM's weights, up or down, does to the outcome is measured, for transformers' own pass.

    Args:
        backbone: In any precision, whose rounding it then is.
        compute: Backbone → the tensors.
    """

    def plainly(model: torch.nn.Module) -> Sequence[Tensor]:
        return compute(Backbone("rounded", model, backbone.tokenizer, "none", PassSettings("plain")))

    plain = plainly(copy.deepcopy(backbone.model))
    epsilon = torch.finfo(backbone.model.dtype).eps
    apart = [epsilon * float(value.abs().max()) for value in plain]
    for seed in range(3):
        generator, model = torch.Generator().manual_seed(seed), copy.deepcopy(backbone.model)
        with torch.no_grad():
            for weight in model.parameters():
                up = torch.randint(0, 2, weight.shape, generator=generator)
                weight.mul_(1 + epsilon * (2 * up - 1))
        apart = [max(pair) for pair in zip(apart, furthest(plainly(model), plain), strict=True)]
    return [LONGEST**0.5 * each for each in apart]
