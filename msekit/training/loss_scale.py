"""LossScale: what lets an adapter train behind a frozen LLM in fp16, whose small gradients would otherwise become zero.

The loss is multiplied before the backward pass and the gradient divided after it (Micikevicius et al. 2018). Where a
product overflowed, the step changes nothing and the scale is halved; after many steps without, it is doubled. As
`torch.amp.GradScaler` does it, but all on the device: that one reads the overflow back to decide on a step, and knows
neither our clipping nor several adapters in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from msekit.runs.progress import Progress

FIRST = 2.0**16
LONG_ENOUGH = 2000
"""Steps without an overflow after which the scale is doubled."""
MOST_IN_A_ROW = 24
"""Steps in a row that may overflow: the scale is far below 1 by then, and it is not the scale that makes them."""
_NAME = "loss_scale."


class LossScale:
    """The scale of one run.

    Args:
        device: Where the loss lies.
        processes: How many train together. Each multiplies its loss with their number, as gradients are averaged;
            within the LLM that factor is left out, so that one scale suits however many there are.
    """

    def __init__(self, device: torch.device, processes: int = 1) -> None:
        self.processes = processes
        self.scale = torch.tensor(FIRST, device=device)
        self.without_overflow = torch.tensor(0.0, device=device)
        """Steps since the last change."""

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients, in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.processes / self.scale)

    def update(self, overflow: Tensor) -> None:
        """Adapt the scale after a step: `overflow` is 1 where its gradient was not finite, 0 elsewhere."""
        steps = (self.without_overflow + 1) * (1 - overflow)
        long_enough = (steps >= LONG_ENOUGH).float()
        self.scale = self.scale * (1 - 0.5 * overflow) * (1 + long_enough)
        self.without_overflow = steps * (1 - long_enough)

    def tensors(self) -> dict[str, Tensor]:
        """What a saved state keeps."""
        return {f"{_NAME}scale": self.scale, f"{_NAME}without_overflow": self.without_overflow}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        device = self.scale.device
        self.scale, self.without_overflow = (tensors[name].to(device, copy=True) for name in self.tensors())


def scaled(loss: Tensor, scale: LossScale | None) -> Tensor:
    """The loss that a gradient is taken of."""
    return loss if scale is None else loss * (scale.scale / scale.processes)


def goes_on(progress: Progress, loss: float, norm: float, scaled: bool) -> bool:
    """Whether training goes on after a step. One that overflowed under a scaled loss is counted as skipped.

    Args:
        progress: Of the run.
        loss: Of the step's batch, unscaled.
        norm: Of its gradient.
        scaled: Whether the loss was scaled.
    """
    finite = math.isfinite(loss) and math.isfinite(norm)
    progress.skipped_in_a_row = 0 if finite else progress.skipped_in_a_row + 1
    if finite:
        return True
    if not scaled or not math.isfinite(loss) or progress.skipped_in_a_row > MOST_IN_A_ROW:
        return False
    progress.skipped += 1
    return True
