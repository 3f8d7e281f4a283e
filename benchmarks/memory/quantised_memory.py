"""Two training steps on a real-shape backbone in 4 or 8 bit on a CPU: peak anonymous memory, and what the plan said.

    python -m msekit.testing.random_checkpoint qwen-1.8b FOLDER
    python -m benchmarks.memory.quantised_memory FOLDER --quantization nf4

Anonymous memory (RssAnon) is what the process itself needs; pages of the mapped weight files are the system's to drop.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from msekit.backbones.quantise import quantization_state
from msekit.distributed.accelerator import accelerator_for
from msekit.planning.plan_run import plan_run
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training.build import build
from msekit.training.loop import Run

MIB = 1 << 20


class AnonymousMemory:
    """Samples this process's RssAnon in a thread, and keeps the largest."""

    def __init__(self, every: float = 0.02) -> None:
        self.peak, self.every = 0, every
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(self.every)

    @staticmethod
    def now() -> int:
        """Bytes at this moment."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(backbone: str, quantization: str, dtype: str, batch: int, steps: int) -> dict[str, Any]:
    """Load, build, step; figures in bytes and seconds."""
    memory = AnonymousMemory()
    with tempfile.TemporaryDirectory() as output:
        fields: dict[str, Any] = {"backbone": backbone, "dataset": "synthetic-erc", "output": output, "profile": "cpu"}
        fields |= {"model": {"quantization": quantization, "dtype": dtype}, "optim": {"batch_size": batch}}
        config = resolve(fields, task="erc")
        plan = plan_run(config)
        started = time.perf_counter()
        parts = build(config, Reporter())
        loaded, load_peak = time.perf_counter() - started, memory.peak
        run = Run(config, parts, accelerator_for(torch.device("cpu")), Reporter())
        model = parts.backbone.model
        tensors = [*model.parameters(), *(tensor for _, tensor in quantization_state(model))]
        tensor_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        losses, seconds = [], []
        for step in range(steps):
            started = time.perf_counter()
            loss, *_ = run.step(run.collate(list(range(step * batch, (step + 1) * batch))), batch)
            losses.append(loss)
            seconds.append(time.perf_counter() - started)
    foreseen = plan.memory.weights + plan.memory.quantization_state
    return {
        "quantization": quantization,
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch": batch,
        "loaded_tensor_bytes": tensor_bytes,
        "foreseen_tensor_bytes": foreseen,
        "foreseen_over_loaded": foreseen / tensor_bytes,
        "load_seconds": loaded,
        "peak_anonymous_while_loading": load_peak,
        "peak_anonymous": memory.peak,
        "foreseen_total": plan.total,
        "losses": losses,
        "step_seconds": seconds,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backbone")
    parser.add_argument("--quantization", default="nf4", choices=("none", "int8", "nf4"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps(measure(**vars(arguments)), indent=1))


if __name__ == "__main__":
    main()
