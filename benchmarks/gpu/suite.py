"""Everything that is to be measured on a GPU, in parts of under eight minutes each.

    python -m benchmarks.gpu.suite --list
    python -m benchmarks.gpu.suite --part cells-qwen-1.8b-bf16 --work FOLDER
    python -m benchmarks.gpu.suite --part cells-llama2-7b-nf4 --tiny --device cpu     # do the code paths work?

`cells`: the paper's (backbone x data set) cells on a 24 GB card. `speed`: training and evaluation beside the published
procedure. `launches`: several processes, one per GPU, against one. `doctor`: what the machine can run.

A part checks that its results are right before it measures. It prints one JSON document, and a table on stderr. A new
part is a file in `benchmarks/gpu/` and a line in `PARTS`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import cells, launches, speed
from benchmarks.gpu.machine import Machine

Part = Callable[[Machine], list[dict[str, Any]]]

PARTS: dict[str, Part] = {
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
    "speed-qwen-1.8b-evaluation": partial(
        speed.run, backbone="qwen-1.8b", turns=2, steps=20, sides=speed.EVALUATION_SIDES
    ),
    "speed-chatglm3-6b": partial(speed.run, backbone="chatglm3-6b", turns=2, steps=5),
    "speed-llama2-7b": partial(speed.run, backbone="llama2-7b", turns=2, steps=5),
    "launches-fp32": partial(launches.run, backbone="tiny-llama", precision="fp32"),
    "launches-bf16": partial(launches.run, backbone="qwen-1.8b", precision="bf16"),
    "launches-int8": partial(launches.run, backbone="qwen-1.8b", precision="int8"),
    "launches-nf4": partial(launches.run, backbone="qwen-1.8b", precision="nf4"),
    "doctor": launches.doctor,
}


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
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, few steps: no figure of it means anything")
    parser.add_argument("--work", type=Path, help="keeps the random checkpoints for the next part")
    arguments = parser.parse_args()
    if arguments.list or not arguments.part:
        print("\n".join(PARTS))
        return
    if arguments.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, if installed, warns on stdout when looked for
    with tempfile.TemporaryDirectory() as scratch:
        machine = Machine(arguments.device, arguments.tiny, arguments.work or Path(scratch))
        result = run_part(arguments.part, machine)
    print(markdown(result["rows"]), file=sys.stderr)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
