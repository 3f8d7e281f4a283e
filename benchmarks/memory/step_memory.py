"""What a training step holds: as it is, with transformers' layers, and with these or the trie's edges left to autograd.

    python -m benchmarks.memory.step_memory --data ../shared/data [--dataset mosi_utt] [--rounds 3] [--threads 1]

Recipe `kit`, smollm2-135m, batch 16, the longest texts of the train split, four steps, each time in a new process.
Prints Markdown: medians and ranges of the process's peak memory and of a step's processor time, and what autograd keeps
of one forward pass. About five minutes a round on one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

import msekit.model.mse_model
from msekit.data.catalogue import resolve_dataset
from msekit.distributed.accelerator import accelerator_for
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training.build import build
from msekit.training.loop import Run

WAYS = ("as it is", "transformers' layers", "their parts plain too", "edge scores plain", "all plain")
STEPS = 4


def plain_edges(logits_BMV: Tensor, row_E: Tensor, token_E: Tensor) -> Tensor:
    """The edges' log-probabilities, left to autograd."""
    return logits_BMV[:, row_E, token_E] - logits_BMV.logsumexp(dim=-1)[:, row_E]


def measure(yaml: Path, way: str, threads: int) -> dict[str, float]:
    """In a process of its own: peak memory and kept tensors in GB, processor seconds of a step."""
    torch.set_num_threads(threads)
    passes = {
        "transformers' layers": "[prefix, last-layer, lean-parts]",
        "their parts plain too": "[prefix, last-layer]",
        "all plain": "[prefix, last-layer]",
    }
    if way in ("edge scores plain", "all plain"):
        msekit.model.mse_model.EdgeScores = SimpleNamespace(apply=plain_edges)  # type: ignore[assignment, misc]
    given = {"backbone": "smollm2-135m", "dataset": str(yaml), "output": "none", "recipe": "kit"}
    chosen = f"model.passes={passes.get(way, 'auto')}"
    config = resolve(given, task=resolve_dataset(str(yaml)).task, overrides=[chosen])
    parts = build(config, Reporter(quiet=True), ("train",))
    run = Run(config, parts, accelerator_for(parts.backbone.device), Reporter(quiet=True))
    run.adapter.train()
    longest = [run.subset[i] for i in np.argsort(-run.lengths[0])[: config.optim.batch_size]]
    seconds = []
    for _ in range(STEPS):
        batches = run.collate(longest)
        started = time.process_time()
        run.step(batches, len(longest))
        seconds.append(time.process_time() - started)
    weights = {p.untyped_storage().data_ptr() for p in parts.backbone.model.parameters()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        parts.model(run.collate(longest)[0])
    return {"peak": peak, "kept": sum(kept.values()) / 1e9, "seconds": statistics.median(seconds[1:])}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dataset", default="mosi_utt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    yaml = options.data / options.dataset / f"{options.dataset}.yaml"
    if options.way:
        print(json.dumps(measure(yaml, options.way, options.threads)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.memory.step_memory", *sys.argv[1:], "--way", way]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"| {options.dataset}, batch 16 | peak, GB | kept by autograd, GB | processor seconds a step |")
    print("|---|---|---|---|")
    for way, rounds in found.items():
        cells = []
        for key in ("peak", "kept", "seconds"):
            values = [each[key] for each in rounds]
            cells.append(f"**{statistics.median(values):.2f}** ({min(values):.2f}–{max(values):.2f})")
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
