"""How gradients become a step: plainly (one process, or DDP), or through DeepSpeed ZeRO. The loop sees one interface.

The adapter alone is handed to either: the frozen backbone is no submodule of `MSEModel`, so no frozen weight is
synchronised, written or given optimiser state. ZeRO-3 shards the backbone besides (`distributed/zero.py`).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from msekit.data.batches.batch import Batch
from msekit.distributed.zero import Zero
from msekit.model.mse_model import MSEModel
from msekit.process import quiet_deepspeed
from msekit.settings.config import OptimConfig
from msekit.training.loss_scale import LossScale, scaled
from msekit.training.optim import optimizer_for

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running averages: what a resumed run needs beside the parameters and the number of steps."""


class Step(NamedTuple):
    """What an optimiser step was; the processes agree on all of it."""

    loss: float
    """The mean over the global batch's samples."""
    norm: float
    """Of its gradient, before clipping."""
    rate: float
    """The learning rate."""
    save_now: bool
    """Whether it is time to save the state."""
    stop_now: bool
    """Whether a signal asks to stop."""


class Engine(Protocol):
    """What the loop trains with."""

    loss_scale: LossScale | None
    """Of a run beside an LLM in fp16."""

    def backward(self, batch: Batch, share: float, last: bool) -> Tensor:
        """Add a part's gradient.

        Args:
            batch: One process's part of the global batch.
            share: What the part's summed loss is multiplied with: 1 / samples of the global batch.
            last: Whether it is the process's last part, after which gradients travel.

        Returns:
            This part's contribution to the global mean loss times the number of processes (scalar).
        """

    def step(self, rate: float) -> Tensor:
        """Clip, take an optimiser step at a learning rate, forget the gradients; without waiting for the device.

        Returns:
            The gradient's norm (scalar); where it is not finite, no step was taken.
        """

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state as `{key}.{parameter}`, whole, and the loss scale's; every process must ask, empty before the
        first step where no loss is scaled."""

    def restore(self, adapter: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Go back to a saved state."""


def engine_for(model: MSEModel, accelerator: Any, config: OptimConfig, zero: Zero | None) -> Engine:
    """The engine that the launch configuration asks for."""
    return PlainEngine(model, accelerator, config) if zero is None else ZeroEngine(model, accelerator, config, zero)


class PlainEngine:
    """AdamW on whole gradients, averaged by DDP where there are several processes."""

    def __init__(self, model: MSEModel, accelerator: Any, config: OptimConfig) -> None:
        self.adapter, self.accelerator, self.config = model.adapter, accelerator, config
        self.optimizer = optimizer_for(model.adapter, config)
        half = model.backbone.model.dtype == torch.float16
        self.loss_scale = LossScale(model.backbone.device, accelerator.num_processes) if half else None
        self.model = accelerator.prepare(model)

    def backward(self, batch: Batch, share: float, last: bool) -> Tensor:
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            # gradients are averaged over processes, so each takes its share of the global mean times their number
            loss = self.model(batch) * share * self.accelerator.num_processes
            self.accelerator.backward(scaled(loss, self.loss_scale))
        return loss.detach()

    def step(self, rate: float) -> Tensor:
        if self.loss_scale is not None:
            self.loss_scale.unscale(self.adapter.parameters())
        norm = nn.utils.clip_grad_norm_(self.adapter.parameters(), self.config.clip_norm or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        # what loss scaling uses: the fused kernel leaves parameters and moments as they are where this is 1
        overflow = norm.isfinite().logical_not().float()
        self.optimizer.found_inf = overflow  # type: ignore[attr-defined]
        if self.loss_scale is not None:
            self.loss_scale.update(overflow)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def moments(self) -> dict[str, Tensor]:
        states = self.optimizer.state
        scale = {} if self.loss_scale is None else self.loss_scale.tensors()
        return scale | {
            f"{key}.{name}": tensor
            for name, parameter in self.adapter.named_parameters()
            for key, tensor in states.get(parameter, {}).items()
        }

    def restore(self, adapter: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        if self.loss_scale is not None:
            self.loss_scale.restore(moments)
        self.adapter.load_state_dict(adapter)
        for name, parameter in self.adapter.named_parameters():
            parts = {key: moments[f"{key}.{name}"] for key in ("step", *MOMENTS) if f"{key}.{name}" in moments}
            if parts:  # a parameter that no gradient ever reached has none
                # the fused kernel wants its number of steps on the parameter's device too, as fp32
                self.optimizer.state[parameter] = {
                    key: part.to(parameter.device, torch.float32, copy=True) for key, part in parts.items()
                }


class ZeroEngine:
    """AdamW whose state (ZeRO-1) and gradients (ZeRO-2, ZeRO-3) are spread over the processes by DeepSpeed."""

    loss_scale: LossScale | None = None  # fp16 is refused (`distributed.zero.check_unscaled`)

    def __init__(self, model: MSEModel, accelerator: Any, config: OptimConfig, zero: Zero) -> None:
        import deepspeed

        quiet_deepspeed()
        self.adapter, self.accelerator = model.adapter, accelerator
        self.base = optimizer_for(model.adapter, config)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=self.base, config=zero.adapter_settings(config.clip_norm)
        )

    def backward(self, batch: Batch, share: float, last: bool) -> Tensor:
        self.engine.set_gradient_accumulation_boundary(last)
        loss = self.engine(batch) * share * self.accelerator.num_processes
        self.engine.backward(loss)
        return loss.detach()

    def step(self, rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32)

    def moments(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        states = list(self.base.state.values())
        if not states:
            return {}
        # DeepSpeed links states to parameters after the first group's first step, when the second group has none yet
        self.optimizer._hp_optimizer_states_linked = False
        self.optimizer._lazy_init_hp_params_optimizer_state()
        moments = {}
        for name, parameter in self.adapter.named_parameters():
            moments[f"step.{name}"] = states[0]["step"].clone()
            for key in MOMENTS:
                moments[f"{key}.{name}"] = safe_get_full_optimizer_state(parameter, key)
        return moments

    def restore(self, adapter: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        self.adapter.load_state_dict(adapter)
        self.optimizer.refresh_fp32_params()
        if not moments:
            return
        steps = next(tensor for name, tensor in moments.items() if name.startswith("step."))
        for group in self.base.param_groups:
            for flat in group["params"]:  # this process's partition, laid out by DeepSpeed; empty until a first step
                zeros = {key: torch.zeros_like(flat.data) for key in MOMENTS}
                self.base.state[flat] = {"step": steps.to(flat.device, torch.float32, copy=True), **zeros}
        self.optimizer._lazy_init_hp_params_optimizer_state()  # no public way to link the state to the parameters
        for name, parameter in self.adapter.named_parameters():
            for key in MOMENTS:
                value = moments.get(f"{key}.{name}", torch.zeros_like(parameter))
                safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)
