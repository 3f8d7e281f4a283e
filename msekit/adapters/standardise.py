"""Numbers in deviations from the train split's mean, which is taken once before training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FURTHEST = 6.0  # deviations; what lies further out is cut there


class Moments:
    """Mean and deviation of samples that come in batches, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.shift = self.total = self.squares = torch.zeros(0)

    def add(self, rows_B: Tensor) -> None:
        """Take in a batch, (B, …)."""
        if not len(rows_B):
            return
        rows_B = rows_B.double()
        if not self.count:  # sums of deviations from a first guess: no difference of large numbers
            self.shift = rows_B.mean(dim=0)
            self.total = self.squares = torch.zeros_like(self.shift)
        self.count += len(rows_B)
        self.total = self.total + (rows_B - self.shift).sum(dim=0)
        self.squares = self.squares + ((rows_B - self.shift) ** 2).sum(dim=0)

    @property
    def mean(self) -> Tensor:
        """Of one sample's shape."""
        return self.shift + self.total / self.count

    @property
    def deviation(self) -> Tensor:
        """Of one sample's shape."""
        return (self.squares / self.count - (self.total / self.count) ** 2).clamp(min=0).sqrt()


class Standardise(nn.Module):
    """Numbers → deviations from the train split's mean, which `fit` sets once before training; nothing trains.

    Args:
        shape: Of one sample.
    """

    mean: Tensor
    scale: Tensor
    """1 / deviation; 0 for a number that never varies."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @torch.no_grad()
    def fit(self, moments: Moments) -> None:
        """Take the statistics."""
        mean, deviation = moments.mean, moments.deviation
        varies = deviation > 1e-6 * (1 + mean.abs())  # less is rounding
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation.clamp(min=1e-30), 0.0))

    def forward(self, rows_B: Tensor) -> Tensor:
        """Standardise, (B, …) → (B, …) float32."""
        return ((rows_B.float() - self.mean) * self.scale).clamp(-_FURTHEST, _FURTHEST)
