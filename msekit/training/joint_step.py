"""One optimiser step of several runs, by the launches of one: norms, clipping and AdamW over all their adapters.

Runs that step alike (the same rate and settings, gradients for the same parameters) share every launch but one of the
clipping; what a run computes is bit for bit what it computes alone. AdamW has one flag for a gradient that is
not finite: where one run of several has such, none of them moves at first, and those whose gradient is finite do when
the step's figures have been read, which is once a step anyhow.

Shapes: R runs, P parameters of an adapter that have a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from msekit.training.engine import PlainEngine


class JointStep:
    """The optimiser of several runs.

    Args:
        engines: Theirs; from now on their moments are kept here, and each still finds its own.
    """

    def __init__(self, engines: Sequence[PlainEngine]) -> None:
        self._optimizer = torch.optim.AdamW([p for each in engines for p in each.adapter.parameters()], fused=True)
        for engine in engines:
            self._optimizer.state.update(engine.optimizer.state)
        for engine in engines:
            engine.optimizer.state = self._optimizer.state
        self._launched: list[tuple[list[PlainEngine], float]] = []

    @torch.no_grad()
    def launch(self, engines: Sequence[PlainEngine], rates: Sequence[float]) -> list[Tensor]:
        """Clip and take a step of every run at its learning rate, without waiting for the device.

        Returns:
            The norm of each run's gradient (scalars). They have to be given to `settle` when they have been read.
        """
        self._launched = []
        alike: dict[object, list[int]] = {}
        for number, (engine, rate) in enumerate(zip(engines, rates, strict=True)):
            alike.setdefault(_kind(engine, rate), []).append(number)
        norms: dict[int, Tensor] = {}
        for numbers in alike.values():
            norms |= zip(numbers, self._launch([engines[n] for n in numbers], rates[numbers[0]]), strict=True)
        return [norms[number] for number in range(len(engines))]

    def settle(self, engines: Sequence[PlainEngine], norms: Sequence[float]) -> None:
        """Take the steps that had to wait for another run's gradient that was not finite, and forget the gradients.

        Args:
            engines: As they were launched.
            norms: Theirs, read.
        """
        finite = {engine for engine, norm in zip(engines, norms, strict=True) if math.isfinite(norm)}
        for group, rate in self._launched:
            moving = [engine for engine in group if engine in finite]
            if moving and len(moving) < len(group):
                self._update(moving, rate, torch.zeros((), device=next(moving[0].adapter.parameters()).device))
            for engine in group:
                engine.optimizer.zero_grad(set_to_none=True)
        self._launched = []

    def _launch(self, engines: list[PlainEngine], rate: float) -> list[Tensor]:
        """The step of runs that step alike, and the norms of their gradients."""
        if len(engines) == 1:
            return [engines[0].step(rate)]
        for engine in engines:
            if engine.loss_scale is not None:
                engine.loss_scale.unscale(engine.adapter.parameters())
        gradients = [_gradients(engine) for engine in engines]
        norms_RP = torch.stack(torch._foreach_norm([grad for own in gradients for grad in own])).view(len(engines), -1)
        norms_R = torch.linalg.vector_norm(norms_RP, dim=1)
        if clip_norm := engines[0].config.clip_norm:  # as `clip_grad_norm_` does it
            shares_R = (clip_norm / (norms_R + 1e-6)).clamp(max=1.0)
            for own, share in zip(gradients, shares_R.unbind(), strict=True):
                torch._foreach_mul_(own, share)
        overflow_R = norms_R.isfinite().logical_not().float()
        for engine, overflow in zip(engines, overflow_R.unbind(), strict=True):
            if engine.loss_scale is not None:
                engine.loss_scale.update(overflow)
        self._update(engines, rate, overflow_R.max())
        self._launched.append((engines, rate))
        return list(norms_R.unbind())

    def _update(self, engines: list[PlainEngine], rate: float, overflow: Tensor) -> None:
        """AdamW's step of runs that step alike, which changes nothing where `overflow` is 1."""
        groups = zip(*(engine.optimizer.param_groups for engine in engines), strict=True)
        self._optimizer.param_groups = [
            {**same[0], "params": [p for group in same for p in group["params"]], "lr": rate * same[0]["share"]}
            for same in groups
        ]
        self._optimizer.found_inf = overflow  # type: ignore[attr-defined]
        self._optimizer.step()


def _gradients(engine: PlainEngine) -> list[Tensor]:
    return [parameter.grad for parameter in engine.adapter.parameters() if parameter.grad is not None]


def _kind(engine: PlainEngine, rate: float) -> object:
    """The same for runs that step alike."""
    groups = [(g["share"], g["weight_decay"], g["eps"], g["betas"]) for g in engine.optimizer.param_groups]
    reached = [parameter.grad is not None for parameter in engine.adapter.parameters()]
    return rate, engine.config.clip_norm, tuple(groups), tuple(reached)
