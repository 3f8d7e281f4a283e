"""What several processes do on GPUs: the same checks as on a CPU, over NCCL, and quantised backbones besides.

    python benchmarks/gpu_launch.py [--backbone tiny-llama] [--dataset synthetic-erc] [--processes N]

One JSON document on stdout: per launch configuration the exit code, the difference of the adapter from that of one
process, the peak memory of process 0 and its speed. One GPU is enough for a first look (--processes 1).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

LIMIT_S = 900
PLAIN = ["ddp", "zero1", "zero2", "zero3", "zero3-offload"]
QUANTISED = [(launch, kind) for launch in ("ddp", "zero1", "zero2") for kind in ("nf4", "int8")]


def train(common: list[str], folder: Path, *more: str) -> dict[str, Any]:
    """One training: how it ended, and the figures of its report."""
    command = [sys.executable, "-m", "msekit", "train", *common, "--output", str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    found: dict[str, Any] = {"code": done.returncode}
    report = folder / "seed-1111" / "report.json"
    if report.is_file():
        wanted = ("peak_memory_bytes", "train_samples_per_s", "metrics")
        found |= {key: json.loads(report.read_text())[key] for key in wanted}
    else:
        found["said"] = next((line for line in done.stderr.splitlines() if "error:" in line), done.stderr[-500:])
    return found


def difference(one: Path, other: Path) -> float | None:
    """Largest difference between two runs' adapters; None where the other has none."""
    files = [folder / "seed-1111" / "adapter.safetensors" for folder in (one, other)]
    if not all(file.is_file() for file in files):
        return None
    mine, theirs = map(load_file, files)
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tiny-llama")
    parser.add_argument("--dataset", default="synthetic-erc")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    several = ["--num-processes", str(given.processes)]
    common = ["--backbone", given.backbone, "--dataset", given.dataset, "--limit-train", "75", "--epochs", "4"]
    common += ["--set", "optim.lr=5e-4", "--set", "evaluation.bootstrap=0"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for dtype in ("fp32", "bf16"):
            settings = [*common, "--set", f"model.dtype={dtype}"]
            one = folder / f"one-{dtype}"
            found[f"one process, {dtype}"] = train(settings, one)
            for launch in PLAIN:
                for checkpointing in ("off", "on"):
                    name = f"{launch}, {dtype}, checkpointing {checkpointing}"
                    other = folder / name
                    more = ["--launch", launch, *several, "--set", f"model.checkpointing={checkpointing}"]
                    found[name] = train(settings, other, *more) | {"difference": difference(one, other)}
        for launch, kind in [*QUANTISED, ("zero3", "nf4")]:  # the last one must be refused with advice
            more = ["--launch", launch, *several, "--set", f"model.quantization={kind}"]
            found[f"{launch}, {kind}"] = train(common, folder / f"{launch}-{kind}", *more)
    doctor = [sys.executable, "-m", "msekit", "doctor", "--format", "json"]
    found["doctor"] = json.loads(subprocess.run(doctor, capture_output=True, text=True, check=False).stdout)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
