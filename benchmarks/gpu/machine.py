"""What every part needs: the machine, a capped card, random backbones of a published shape, timing."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msekit.testing.random_checkpoint import SHAPES, write_checkpoint

GIB = 1 << 30
TINY: dict[str, dict[str, Any]] = {
    "qwen-1.8b": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"kv_channels": 16, "vocab_size": 700},
    "chatglm3-6b": {"hidden_size": 64, "ffn_hidden_size": 128, "num_layers": 2, "num_attention_heads": 4}
    | {"kv_channels": 16, "padded_vocab_size": 700},
    "llama2-7b": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 4, "vocab_size": 700},
}
"""What is changed for a dry run on any machine."""


@dataclass(frozen=True)
class Machine:
    """Where a part runs."""

    device: str
    tiny: bool
    """Small shapes and few steps: do the code paths work?"""
    work: Path
    """Random checkpoints are kept here, 4 to 14 GB each at their real shape."""

    @property
    def cuda(self) -> bool:
        """Whether there is anything to measure memory on."""
        return self.device.startswith("cuda")

    def cap(self, gigabytes: float) -> None:
        """Let this process have no more of the card than this."""
        if self.cuda:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * GIB / total))

    def start_peak(self) -> None:
        """Forget earlier peaks."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """Largest allocation in bytes since then; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.cuda else None

    def seconds(self, action: Callable[[], Any]) -> float:
        """Time of an action, everything queued before and by it included."""
        if self.cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        action()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def shape(self, backbone: str) -> dict[str, Any]:
        """A published configuration; in the dry run a small one of its kind."""
        return SHAPES[backbone] | (TINY[backbone] if self.tiny else {})

    def give_up_if_broken(self, error: Exception) -> None:
        """End a part whose process can compute nothing more: after an error of a kernel every later call fails too.

        Raises:
            Exception: The error.
        """
        if self.cuda and "CUDA error" in str(error):
            raise error

    def checkpoint(self, backbone: str) -> Path:
        """A random checkpoint of a backbone's shape, written once."""
        folder = self.work / f"{backbone}{'-tiny' if self.tiny else ''}"
        if not (folder / "config.json").is_file():  # written last
            raw = self.shape(backbone)
            write_checkpoint(folder, raw, binary=raw["model_type"] == "chatglm")
        return folder

    def describe(self) -> str:
        """The device in words."""
        return torch.cuda.get_device_name() if self.cuda else "CPU"


def said(error: BaseException) -> str:
    """An error in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:300]} @ {Path(place.filename).name}:{place.lineno}"
