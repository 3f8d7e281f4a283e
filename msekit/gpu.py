"""The GPU at hand: its name, its memory, whether it multiplies bf16 numbers itself; and numbers on their way to it and
from it, for which nobody waits. Loads torch when asked, where there can be a GPU at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GIB = 1 << 30
SPARE = GIB
"""Bytes of a card that no run is planned for: what a desktop and other programs take, and the allocator's gaps. An
assumption, beside the reserve that every plan has."""


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    memory_bytes: int
    bf16: bool
    """Without emulation: a T4 or a V100 only imitates it."""

    @property
    def usable_bytes(self) -> int:
        """What a run may be planned for."""
        return max(self.memory_bytes - SPARE, 0)

    @property
    def default_dtype(self) -> str:
        """The precision that an LLM is held in where none is asked for."""
        return "bf16" if self.bf16 else "fp16"

    def __str__(self) -> str:
        return f"{self.name} ({self.memory_bytes / GIB:.1f} GiB{'' if self.bf16 else ', no bf16'})"


def settle_allocator() -> None:
    """Say how CUDA takes memory, which is read once, when it starts; what a user has said stays."""
    # batches differ in length at every step: segments that grow keep the memory in one piece
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its former name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same sums whatever runs beside


def card(number: int) -> Card:
    """One of this machine's GPUs."""
    import torch

    settle_allocator()
    properties = torch.cuda.get_device_properties(number)
    # what `torch.cuda.is_bf16_supported(including_emulation=False)` says, which can be asked of the current card alone
    bf16 = bool(torch.version.hip) or properties.major >= 8
    return Card(properties.name, properties.total_memory, bf16)


def card_at_hand() -> Card | None:
    """The GPU that a run would use; None where there is none, which a CPU build of torch tells without being loaded.

    Of several processes on one machine each has its own card: what they do alike has to fit the smallest.
    """
    if version("torch").endswith("+cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cards = [card(number) for number in range(max(min(processes, torch.cuda.device_count()), 1))]
    smallest = min(cards, key=lambda card: card.memory_bytes)
    return Card(smallest.name, smallest.memory_bytes, all(card.bf16 for card in cards))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of main memory on a device, which copies it while the program goes on."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class OnItsWay:
    """A tensor on its way to main memory.

    Args:
        tensor: On any device; on a CPU it is there.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._there = self._sent = tensor
        self._event = None
        if tensor.device.type == "cuda":
            import torch

            # memory of another kind would be waited for; what is copied must stay until it is
            self._sent = tensor.contiguous()
            self._there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._there.copy_(self._sent, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))

    def arrived(self) -> Tensor:
        """It, in main memory; waits for what made it, not for what the device was given to do since."""
        if self._event is not None:
            self._event.synchronize()
        return self._there


def one_late(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tensors of a device in main memory, each when the next one has been asked for: the device is never idle."""
    before = None
    for tensor in tensors:
        before, arriving = OnItsWay(tensor), before
        if arriving is not None:
            yield arriving.arrived()
    if before is not None:
        yield before.arrived()
