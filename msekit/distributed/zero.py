"""DeepSpeed ZeRO as the launch configuration asks for it: its settings, and a frozen backbone sharded by ZeRO-3.

Stages 1 and 2 concern the adapter alone. Stage 3 also loads the frozen backbone in shards, 1/N of it in each process,
and gathers a layer's weights only while they are used; the adapter's own few megabytes stay whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from msekit.backbones.backbone import Backbone
from msekit.errors import MsekitError
from msekit.process import quiet_deepspeed

_PREFIX = "ACCELERATE_DEEPSPEED_"  # how accelerate's launcher hands the configuration to the processes it starts


@dataclass(frozen=True)
class Zero:
    """What a launch configuration says about ZeRO."""

    stage: int
    offload_optimizer: str = "none"
    """`cpu` keeps AdamW's state in main memory."""
    offload_param: str = "none"
    """`cpu` keeps the backbone's shards in main memory (stage 3)."""

    @classmethod
    def asked_for(cls) -> Zero | None:
        """From the environment that accelerate's launcher sets; None for a run without DeepSpeed.

        Raises:
            MsekitError: DeepSpeed is asked for and not installed.
        """
        if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") != "true":
            return None
        from msekit.distributed.processes import check_deepspeed  # which nobody without ZeRO need load

        check_deepspeed()
        return cls(
            int(os.environ.get(f"{_PREFIX}ZERO_STAGE", "2")),
            os.environ.get(f"{_PREFIX}OFFLOAD_OPTIMIZER_DEVICE", "none"),
            os.environ.get(f"{_PREFIX}OFFLOAD_PARAM_DEVICE", "none"),
        )

    def adapter_settings(self, clip_norm: float | None) -> dict[str, Any]:
        """DeepSpeed's configuration for the adapter."""
        return {
            **_COMMON,
            "gradient_clipping": clip_norm or 0.0,
            "zero_optimization": {
                "stage": min(self.stage, 2),
                "offload_optimizer": {"device": self.offload_optimizer},
            },
            "zero_allow_untested_optimizer": True,  # torch's own AdamW, so that every engine takes the same step
            "zero_force_ds_cpu_optimizer": False,
        }

    def backbone_settings(self, dtype: str) -> dict[str, Any]:
        """DeepSpeed's configuration for a frozen backbone held in `fp32` or `bf16`."""
        return {
            **_COMMON,
            "bf16": {"enabled": dtype == "bf16"},
            "zero_optimization": {
                "stage": 3,
                "offload_param": {"device": self.offload_param},
                "stage3_param_persistence_threshold": 0,
            },
        }


_COMMON = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "steps_per_print": 1 << 62}


@contextmanager
def loading_in_shards(zero: Zero, dtype: str) -> Iterator[None]:
    """Within, transformers loads a checkpoint so that each process keeps 1/N of every weight."""
    from transformers.integrations import HfDeepSpeedConfig

    settings = HfDeepSpeedConfig(zero.backbone_settings(dtype))  # transformers holds a weak reference to it
    yield
    del settings


def gather_when_used(backbone: Backbone, zero: Zero, dtype: str) -> None:
    """Give a sharded backbone the hooks that gather each layer's weights for its forward and backward pass."""
    import deepspeed

    quiet_deepspeed()
    deepspeed.initialize(model=backbone.model, config=zero.backbone_settings(dtype))


def held_share(backbone: Backbone) -> tuple[int, int] | None:
    """How many of a sharded backbone's parameters this process holds, and how many there are; None for a whole one."""
    parameters = list(backbone.model.parameters())
    if not all(hasattr(parameter, "ds_id") for parameter in parameters):
        return None
    here = sum(parameter.ds_tensor.numel() + parameter.data.numel() for parameter in parameters)
    return here, sum(parameter.ds_numel for parameter in parameters)


def gathered(module: nn.Module) -> AbstractContextManager[None]:
    """Within, a module's weights are whole; every process must enter."""
    parameters = list(module.parameters())
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)


def check_unscaled(dtype: str) -> None:
    """Refuse ZeRO beside a backbone in fp16, where the loss has to be scaled: DeepSpeed's engine does not do it here.

    Raises:
        MsekitError: The precision is fp16.
    """
    if dtype == "fp16":
        raise MsekitError(
            "ZeRO does not train beside an LLM in fp16, for which the loss has to be scaled",
            where="model.dtype",
            fix="Use one process or --launch ddp, which scale it, or model.dtype=fp32.",
        )


def check_sharding(quantization: str, compiled: bool = False) -> None:
    """Refuse ZeRO-3 on a quantised backbone: transformers loads one whole, and what fits whole needs no shards.

    Raises:
        MsekitError: Always for int8 and nf4, with what works instead; and for a compiled pass, whose weights would
            have to be gathered layer by layer.
    """
    if compiled:
        raise MsekitError(
            "ZeRO-3 gathers each layer's weights as it is reached, which a compiled pass has no place for",
            where="model.compile",
            fix="Leave model.compile out, or use --launch zero2 or ddp.",
        )
    if quantization != "none":
        raise MsekitError(
            f"ZeRO-3 cannot load {quantization} weights in shards: every process would first hold all of them",
            where="model.quantization",
            fix="Use --launch zero2 or ddp with it, or zero3 with an unquantised backbone.",
        )
