"""An exponential moving average of the adapter (`optim.ema`), which validation, test and the saved adapter then are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of an adapter's parameters over the steps.

    Args:
        adapter: What trains.
        decay: Share that the average keeps at a step; less during the first steps, (1 + n) / (10 + n) at step n.
    """

    def __init__(self, adapter: nn.Module, decay: float) -> None:
        self.adapter, self.decay = adapter, decay
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in adapter.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step (numbered from 1)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.adapter.named_parameters():
            self.tensors[name].lerp_(parameter.detach(), 1 - keep)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the adapter for a while."""
        with torch.no_grad():
            own = {name: parameter.detach().clone() for name, parameter in self.adapter.named_parameters()}
            self._copy(self.tensors)
            try:
                yield
            finally:
                self._copy(own)

    @torch.no_grad()
    def adopt(self) -> None:
        """Put the average into the adapter for good."""
        self._copy(self.tensors)

    def _copy(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.adapter.named_parameters():
            parameter.copy_(tensors[name])
