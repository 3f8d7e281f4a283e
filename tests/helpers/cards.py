"""Cards that are not here: a GPU's properties in place of this machine's, for what is planned from them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import pytest

from msekit import gpu


class Sold(NamedTuple):
    """A card as torch sees it."""

    name: str
    gib: float
    """Somewhat less than it is sold with."""
    major: int
    """Of its compute capability; 8 has bf16."""


CARDS = {
    8: Sold("NVIDIA GeForce RTX 3070", 7.78, 8),
    12: Sold("NVIDIA GeForce RTX 3060", 11.76, 8),
    16: Sold("Tesla T4", 14.56, 7),
    24: Sold("NVIDIA GeForce RTX 4090", 23.64, 8),
    80: Sold("NVIDIA H100 80GB HBM3", 79.11, 9),
    141: Sold("NVIDIA H200", 139.72, 9),
}


def put_in(monkeypatch: pytest.MonkeyPatch, *sold: Sold) -> None:
    """Let this machine have those GPUs."""
    properties = [
        SimpleNamespace(name=one.name, total_memory=int(one.gib * gpu.GIB), major=one.major, minor=0) for one in sold
    ]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "version", lambda _: "2.11.0+cu130")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(properties))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: properties[number])
