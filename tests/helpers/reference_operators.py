"""What the Triton kernels of `msekit.backbones.gpu` compute, in torch's own operators, whose gradients are autograd's.

They round where transformers does. `in_their_place` lets layers be tested where there is no Triton.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msekit.backbones.gpu import fused_layers

LAUNCHED: list[str] = []
"""Names of the operators that stood in for kernels."""


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x + delta, norm(x + delta, weight, eps)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    def turned(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat([-b, a], dim=-1) * sin[:, None]

    return turned(q), turned(k)


REFERENCES = {"Norm": norm, "AddNorm": add_norm, "Gated": gated, "Rotary": rotary}


def in_their_place(patch: pytest.MonkeyPatch) -> None:
    """From now on layers are computed by the references, on a CPU too."""

    def noted(name: str):
        return lambda *given: LAUNCHED.append(name) or REFERENCES[name](*given)

    module = ModuleType("msekit.backbones.gpu.operators")
    vars(module).update({name: SimpleNamespace(apply=noted(name)) for name in REFERENCES})
    patch.setitem(sys.modules, module.__name__, module)
    patch.setattr(fused_layers, "find_spec", lambda name: name)
    patch.setenv("TRITON_INTERPRET", "1")
