"""Training steps and scoring of two checkouts by turns in one run: does a change leave the speed as it was?

    git worktree add ../before COMMIT
    python -m benchmarks.speed.two_commits --before ../before --data ../shared/data [--dtype bf16] [--rounds 8]

Each checkout runs in a process of its own, which prepares its sides with its own `train_speed` and `eval_speed`, then
waits; the processes take turns block by block, so that a busy machine slows both alike. Prints Markdown: the medians
over the rounds of time before / time after (above 1: the change is quicker), with their range, in wall and in processor
time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

BLOCKS = ("training, paper", "training, prompt-first", "scoring, paper", "scoring, prompt-first")
CHILD = """
import json, os, sys, time
from pathlib import Path
import torch
backbone, dataset, steps, threads, *overrides = sys.argv[1:]
if Path("benchmarks/speed/train_speed.py").is_file():
    from benchmarks.speed.eval_speed import kit_side as scoring
    from benchmarks.speed.train_speed import LAYOUTS, in_layout, kit_side, prepare
else:  # a commit at which the benchmarks were scripts in one folder
    sys.path.insert(0, "benchmarks")
    from eval_speed import kit_side as scoring
    from train_speed import LAYOUTS, in_layout, kit_side, prepare
torch.set_num_threads(int(threads))
prepared = prepare(backbone, dataset, 16, overrides)
blocks = {}
for name, side in (("training", kit_side), ("scoring", scoring)):
    for layout in LAYOUTS:
        blocks[f"{name}, {layout}"] = side(*in_layout(*prepared, layout), int(steps)).run
print("ready", flush=True)
for line in sys.stdin:
    started, processor = time.perf_counter(), time.process_time()
    blocks[line.strip()]()
    print(json.dumps([time.perf_counter() - started, time.process_time() - processor]), flush=True)
"""


class Checkout:
    """A checkout's process.

    Args:
        tree: The checkout.
        arguments: Of `CHILD`.
    """

    def __init__(self, tree: Path, arguments: list[str]) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
        command = [sys.executable, "-c", CHILD, *arguments]
        self.process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while (line := self._line()) != "ready":
            print(line, file=sys.stderr)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[-1]!r}: the checkout's process ended")  # type: ignore[index]
        return line.strip()

    def seconds(self, block: str) -> tuple[float, float]:
        """Run a block; its wall and processor seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(block + "\n")
        self.process.stdin.flush()
        wall, processor = json.loads(self._line())
        return wall, processor


def spread(ratios: list[float]) -> str:
    """Median and range."""
    return f"**{statistics.median(ratios):.3f}** ({min(ratios):.3f}–{max(ratios):.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=Path())
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dataset", default="meld6")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="batches of 16 in a block")
    options = parser.parse_args()
    dataset = options.data.resolve() / options.dataset / f"{options.dataset}.yaml"
    arguments = [options.backbone, str(dataset), str(options.steps), str(options.threads)]
    arguments.append(f"model.dtype={options.dtype}")
    trees = [Checkout(tree, arguments) for tree in (options.before, options.after)]
    print(f"| {options.dataset}, {options.dtype} | wall time before / after | processor time before / after |")
    print("|---|---|---|")
    for block in BLOCKS:
        ratios: list[tuple[float, float]] = []
        for number in range(options.rounds + 1):
            order = trees if number % 2 else trees[::-1]
            taken = {id(tree): tree.seconds(block) for tree in order}
            before, after = (taken[id(tree)] for tree in trees)
            ratios.append((before[0] / after[0], before[1] / after[1]))
        wall, processor = zip(*ratios[1:], strict=True)  # the first round warms up
        print(f"| {block} | {spread(list(wall))} | {spread(list(processor))} |", flush=True)


if __name__ == "__main__":
    main()
