"""The GPU at hand: its name, its memory, and whether it multiplies bf16 numbers itself. Loads torch when asked, where
there can be a GPU at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version

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
