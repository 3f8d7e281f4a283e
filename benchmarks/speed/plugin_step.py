"""A training step of `mse-states` beside one of the paper's plug-in, in the same layout, alternating.

    python -m benchmarks.speed.plugin_step --data ../shared/data [--datasets meld6 mosi_utt] [--steps 8] [--rounds 5]

Both train on the same batches with the same loss over every label, so what differs is the plug-in.
Hidden states lie in the cache before the clock runs.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks.speed.measure import Side, Work, alternate, machine, spread
from msekit.data.catalogue import resolve_dataset
from msekit.distributed.accelerator import accelerator_for
from msekit.reporter import Reporter
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.settings.recipes import BEST
from msekit.training.build import build
from msekit.training.loop import Run

RECIPES = {"mse": "kit", "mse-states": "best"}


def side(adapter: str, dataset: str, layout: str, steps: int, folder: Path) -> Side:
    """Steps of one adapter, beginning where the last block ended."""
    task = resolve_dataset(dataset).task
    losses = tuple(f"loss.{key}={value}" for key, value in BEST[task]["loss"].items() if key != "alone")
    request = RunRequest(
        "smollm2-135m", dataset, recipe=RECIPES[adapter], layout=layout, output=folder, overrides=losses
    )
    ((config,), _) = plan_runs(request)
    assert config.adapter.name == adapter
    parts = build(config, Reporter(quiet=True), splits=("train",))
    run = Run(config, parts, accelerator_for(parts.backbone.device), Reporter(quiet=True))
    batches = cycle(run.begin_epoch())

    def block() -> Work:
        chosen = list(islice(batches, steps))
        for batch in chosen:
            run.step(run.collate(batch), len(batch))
            run.progress.step += 1
        return Work(sum(map(len, chosen)), 0, 0.0)

    return Side(adapter, block)


def main() -> None:
    """Print a Markdown row per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=["meld6", "mosi_utt"])
    parser.add_argument("--layout", default="prompt-first")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine(torch.device("cpu")))
    print("| data set | mse, samples/s | mse-states, samples/s | time of a step, × mse |\n|---|---|---|---|")
    for name in options.datasets:
        with tempfile.TemporaryDirectory() as folder:
            yaml = str(options.data / name / f"{name}.yaml")
            sides = [side(a, yaml, options.layout, options.steps, Path(folder) / a) for a in ("mse", "mse-states")]
            alternate(sides, options.rounds, torch.device("cpu"))
        mse, states = (one.per_second("samples") for one in sides)
        ratios = [theirs / ours for theirs, ours in zip(mse, states, strict=True)]
        print(f"| {name} | {spread(mse)} | {spread(states)} | {spread(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
