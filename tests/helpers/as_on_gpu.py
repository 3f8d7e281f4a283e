"""Computing as on a GPU, on a CPU: LLMs in bf16 with fused attention and a GPU's masks, by none of the CPU's layers.

`MSEKIT_TEST_AS_ON_GPU=1` (`make gpu-like`) does so for a whole run of the tests, `computing_as_on_a_gpu` for one of
them. Only what is left open is decided so: a test that asks for fp32 gets it.
"""

from __future__ import annotations

import os

import pytest

from msekit.backbones import load, precision
from msekit.backbones.backbone import Backbone
from msekit.backbones.cpu import decoder_layers
from msekit.training import build

ON = os.environ.get("MSEKIT_TEST_AS_ON_GPU") == "1"
"""Whether this run of the tests computes so."""
fp32_alone = pytest.mark.skipif(ON, reason="asks what a CPU decides, or what only fp32 tells from rounding")


def computing_as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """From now on; what is loaded already stays as it is."""
    begin = Backbone.__post_init__

    def begun(self: Backbone) -> None:
        if getattr(self.model, "_supports_sdpa", False) and self.model.config._attn_implementation == "eager":
            self.model.set_attn_implementation("sdpa")
        begin(self)
        self.on_gpu = True

    patch.setattr(Backbone, "__post_init__", begun)
    patch.setattr(decoder_layers, "obstacle", lambda layers: "as on a GPU")
    patch.setattr(load, "default_dtype", lambda device: "bf16")
    patch.setattr(build, "run_dtype", lambda *given: "bf16")
    units = dict.fromkeys(precision.BF16_UNITS, True)  # so that what is trained in bf16 is used in bf16
    own = precision.abilities
    patch.setattr(precision, "abilities", lambda: {**own(), **units})


def bound(fp32: float, bf16: float) -> float:
    """How far numbers may be apart: by the precision of this run of the tests."""
    return bf16 if ON else fp32
