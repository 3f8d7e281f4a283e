"""The frozen LLM's pass as one compiled program (`model.compile`): fewer kernels and, on a GPU, a single launch.

`torch.compile` traces the whole decoder, once for training and once for scoring, with its sizes as symbols. On a GPU
every size is captured in a CUDA graph of its own; columns are padded so that few sizes come up. Values
are those of the plain pass up to rounding. What it gives on a GPU has not been measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msekit.backbones.holding import MULTIPLE
from msekit.backbones.sequence import Pass, Sequence
from msekit.errors import MsekitError

BACKEND = "inductor"
_GRAPHS = 64
"""Programs that one process may make: training, scoring, a batch of one, another objective."""


class CompiledPass:
    """A pass through the LLM, compiled at its first call.

    Args:
        compute: Sequence → logits.
        device: `cuda` for CUDA graphs besides.

    Raises:
        MsekitError: In the first call, where the architecture or the machine does not let it be compiled.
    """

    def __init__(self, compute: Pass, device: str) -> None:
        import torch._dynamo

        self._settings: dict[str, Any] = {
            "recompile_limit": max(torch._dynamo.config.recompile_limit, _GRAPHS),
            # with sizes as symbols, a norm's epsilon would be an input in the host's memory: no CUDA graph takes one
            "specialize_float": True,
        }
        mode = "reduce-overhead" if device == "cuda" else None
        self._compute = torch.compile(compute, dynamic=True, fullgraph=True, backend=BACKEND, mode=mode)
        self._refusals = torch._dynamo.exc.TorchDynamoException

    def __call__(self, sequence: Sequence) -> Tensor:
        """Its logits. They are good until the next call: on a GPU that one writes into the same memory."""
        torch.compiler.cudagraph_mark_step_begin()
        try:
            with torch._dynamo.config.patch(self._settings):
                return self._compute(sequence.aligned(MULTIPLE))
        except self._refusals as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise MsekitError(
                f"the LLM's pass cannot be compiled: {first}",
                where="model.compile",
                fix="Leave model.compile out. Compiling wants a C++ compiler on a CPU and Triton on a GPU.",
            ) from error
