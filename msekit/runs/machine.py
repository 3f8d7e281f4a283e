"""What computed a run's numbers: versions of the packages, memory used."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from msekit.version import __version__

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_memory(device: torch.device) -> int:
    """Largest memory in bytes: allocated on the GPU, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


def peaks(device: torch.device) -> dict[str, int]:
    """What a report says of memory; on a GPU also the most that the allocator held, with the gaps between tensors."""
    reserved = {"peak_memory_reserved_bytes": torch.cuda.max_memory_reserved(device)} if device.type == "cuda" else {}
    return {"peak_memory_bytes": peak_memory(device), **reserved}


def versions() -> dict[str, str]:
    """Package → version, of those that are installed."""
    numbers = {"msekit": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "accelerate", "bitsandbytes", "datasets", "numpy"):
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    return numbers
