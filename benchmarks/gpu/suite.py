"""Everything that is to be measured on a GPU, in parts of under eight minutes each.

    python -m benchmarks.gpu.suite --list
    python -m benchmarks.gpu.suite --first-quarter                # what to run in the first quarter of an hour on a GPU
    python -m benchmarks.gpu.suite --part cells-qwen-1.8b-bf16 --work FOLDER
    python -m benchmarks.gpu.suite --first-quarter --dry-run      # small shapes on a CPU: do the code paths work?

`first-look`: does it run, is it right, what is a step. `cells`: the paper's (backbone x data set) cells on a 24 GB
card. `speed`: training and evaluation beside the published procedure. `launches`: several processes, one per GPU,
against one. `doctor`: what the machine can run.

A part checks that its results are right before it measures. It prints one JSON document, and a table on stderr. What
fails has a row that says so, the rest is measured all the same, and the exit code is 1. A new part is a file in
`benchmarks/gpu/` and a line in `PARTS`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import cells, first_look, launches, speed
from benchmarks.gpu.machine import Machine
from msekit.process import ready_for_cuda

Part = Callable[[Machine], list[dict[str, Any]]]

PARTS: dict[str, Part] = {
    "first-look": partial(first_look.run, shape="qwen-1.8b"),
    "cells-qwen-1.8b-bf16": partial(cells.run, backbone="qwen-1.8b", quantization="bf16"),
    "cells-qwen-1.8b-int8": partial(cells.run, backbone="qwen-1.8b", quantization="int8"),
    "cells-qwen-1.8b-nf4": partial(cells.run, backbone="qwen-1.8b", quantization="nf4"),
    "cells-chatglm3-6b-bf16": partial(cells.run, backbone="chatglm3-6b", quantization="bf16"),
    "cells-chatglm3-6b-int8": partial(cells.run, backbone="chatglm3-6b", quantization="int8"),
    "cells-chatglm3-6b-nf4": partial(cells.run, backbone="chatglm3-6b", quantization="nf4"),
    "cells-llama2-7b-bf16": partial(cells.run, backbone="llama2-7b", quantization="bf16"),
    "cells-llama2-7b-int8": partial(cells.run, backbone="llama2-7b", quantization="int8"),
    "cells-llama2-7b-nf4": partial(cells.run, backbone="llama2-7b", quantization="nf4"),
    "speed-qwen-1.8b": partial(speed.run, backbone="qwen-1.8b", turns=2, steps=20),
    "speed-qwen-1.8b-compiled": partial(speed.run, backbone="qwen-1.8b", turns=1, steps=20, sides=speed.COMPILED_SIDES),
    "speed-qwen-1.8b-ways": partial(speed.run, backbone="qwen-1.8b", turns=1, steps=20, sides=speed.WAYS_SIDES),
    "speed-qwen-1.8b-evaluation": partial(
        speed.run, backbone="qwen-1.8b", turns=2, steps=20, sides=speed.EVALUATION_SIDES
    ),
    "speed-qwen-1.8b-short": partial(speed.run, backbone="qwen-1.8b", turns=1, steps=20),
    "speed-qwen-1.8b-evaluation-short": partial(
        speed.run, backbone="qwen-1.8b", turns=1, steps=20, sides=speed.EVALUATION_SIDES
    ),
    "speed-qwen-1.8b-compiled-short": partial(
        speed.run, backbone="qwen-1.8b:8", turns=1, steps=5, sides=(*speed.COMPILED_SIDES[:2], speed.COMPILED_SIDES[2])
    ),
    "speed-chatglm3-6b": partial(speed.run, backbone="chatglm3-6b", turns=2, steps=5),
    "speed-llama2-7b": partial(speed.run, backbone="llama2-7b", turns=2, steps=5),
    "launches-fp32": partial(launches.run, backbone="tiny-llama", precision="fp32"),
    "launches-bf16": partial(launches.run, backbone="qwen-1.8b", precision="bf16"),
    "launches-int8": partial(launches.run, backbone="qwen-1.8b", precision="int8"),
    "launches-nf4": partial(launches.run, backbone="qwen-1.8b", precision="nf4"),
    "doctor": launches.doctor,
}

FIRST_QUARTER: dict[str, int] = {
    "first-look": 200,
    "speed-qwen-1.8b-short": 170,
    **dict.fromkeys((name for name in PARTS if name.startswith("cells-")), 30),
    "speed-qwen-1.8b-evaluation-short": 80,
    "speed-qwen-1.8b-compiled-short": 100,
}
"""Parts in the order in which they tell most, and the seconds that each may take: within a quarter of an hour."""
DRY_S = 300
"""Seconds that a part of the dry run may take."""


def run_part(name: str, machine: Machine) -> dict[str, Any]:
    """Run one part; its rows with where and when they were measured."""
    started = time.perf_counter()
    rows = PARTS[name](machine)
    return {
        "part": name,
        "device": machine.describe(),
        "torch": torch.__version__,
        "tiny": machine.tiny,
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a table for gpu/RESULTS.md."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def first_quarter(device: str, tiny: bool, parts: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """Every part of `FIRST_QUARTER` in a process of its own, each within its time.

    Args:
        device: Where.
        tiny: Small shapes and few steps.
        parts: Others than `FIRST_QUARTER`, with the seconds that each may take.

    Returns:
        What each part printed; of one that fails or takes too long, why. It is also printed as soon as it is there.
    """
    results = []
    for name, seconds in (parts or FIRST_QUARTER).items():
        command = [sys.executable, "-m", "benchmarks.gpu.suite", "--part", name, "--device", device]
        result: dict[str, Any] = {"part": name, "within_s": DRY_S if tiny else seconds}
        try:
            done = subprocess.run(
                [*command, *(["--tiny"] if tiny else [])],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
                timeout=result["within_s"],
            )
            result |= {"code": done.returncode} | (json.loads(done.stdout) if done.stdout else {})
        except subprocess.TimeoutExpired:
            result |= {"code": None, "failed": "took longer than it may"}
        except ValueError as error:
            result |= {"failed": f"printed no JSON: {error}"}
        results.append(result)
        print(json.dumps(result), flush=True)
    return results


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--first-quarter", action="store_true", help="the first quarter of an hour, part by part")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, few steps: no figure of it means anything")
    parser.add_argument("--dry-run", action="store_true", help="--tiny on a CPU")
    parser.add_argument("--work", type=Path, help="keeps the random checkpoints for the next part")
    arguments = parser.parse_args()
    device, tiny = ("cpu", True) if arguments.dry_run else (arguments.device, arguments.tiny)
    if arguments.list or not (arguments.part or arguments.first_quarter):
        print("\n".join(PARTS))
        return
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, if installed, warns on stdout when looked for
    else:
        ready_for_cuda()
    if arguments.first_quarter:
        sys.exit(int(any(result.get("code") != 0 for result in first_quarter(device, tiny))))
    with tempfile.TemporaryDirectory() as scratch:
        result = run_part(arguments.part, Machine(device, tiny, arguments.work or Path(scratch)))
    print(markdown(result["rows"]), file=sys.stderr)
    print(json.dumps(result, indent=1))
    sys.exit(int(any("failed" in row for row in result["rows"])))


if __name__ == "__main__":
    main()
