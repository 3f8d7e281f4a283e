"""SampleDropout and SampleNoise: choices that follow from seed, epoch and sample, not from a generator that all share.

A run then has the same trajectory in one process or many, in parts, beside other seeds, and after it was resumed; on a
GPU it leaves out the same numbers as on a CPU. Shapes: B batch, N numbers of a sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# odd constants of 64 bits, and the mixer of splitmix64 (Steele et al. 2014); products wrap around
_STEP, _FIRST, _SECOND = (
    int.from_bytes(bytes.fromhex(bits), byteorder="big", signed=True)
    for bits in ("9E3779B97F4A7C15", "BF58476D1CE4E5B9", "94D049BB133111EB")
)


def mixed(numbers: Tensor) -> Tensor:
    """int64 → int64, every bit of which depends on every bit of the number."""
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Moved right, with zeros on the left (torch repeats the sign)."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def draws(seed: int, epoch: int, index_B: Tensor) -> Tensor:
    """Positions of samples → (B,) int64, the number that decides what a sample's dropout leaves out in an epoch."""
    epoch_seed = torch.tensor([epoch, seed], device=index_B.device) * _STEP
    return mixed(mixed(index_B + epoch_seed[0]) + epoch_seed[1])


class SampleDropout(nn.Module):
    """Leaves out a share of a sample's numbers in training and scales the others up, as `nn.Dropout`.

    Args:
        share: Of the numbers.
        place: Tells the dropouts of an adapter apart.
    """

    def __init__(self, share: float, place: int) -> None:
        super().__init__()
        self.share, self.place = share, place

    def forward(self, rows_BN: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B, N), (B,) → (B, N); as it is in evaluation and where no draws are given."""
        if not self.training or draw_B is None or not self.share:
            return rows_BN
        return rows_BN * (_uniform(draw_B, rows_BN.shape[1], self.place << 32) > self.share) / (1 - self.share)


class SampleNoise(nn.Module):
    """Adds Gaussian noise to a sample's numbers in training, by the method of Box and Muller.

    Args:
        deviation: Of the noise.
        place: Tells the noises and dropouts of an adapter apart.
    """

    def __init__(self, deviation: float, place: int) -> None:
        super().__init__()
        self.deviation, self.place = deviation, place

    def forward(self, rows_BN: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B, N), (B,) → (B, N)."""
        if not self.training or draw_B is None or not self.deviation:
            return rows_BN
        first_BN, second_BN = (_uniform(draw_B, rows_BN.shape[1], 2 * self.place + n << 40) for n in (0, 1))
        normal_BN = (-2 * first_BN.log()).sqrt() * (2 * math.pi * second_BN).cos()
        return rows_BN + self.deviation * normal_BN


def _uniform(draw_B: Tensor, numbers: int, place: int) -> Tensor:
    """(B, N) float32 in (0, 1]: 24 bits, exact."""
    column_N = torch.arange(numbers, device=draw_B.device) + place
    bits_BN = _shifted(mixed(draw_B[:, None] + column_N * _STEP), 40)
    return (bits_BN + 1) / 2**24
