"""The real runs of RESULTS.md: smollm2-135m on ravdess, meld6 and mosi_utt, three seeds each, on a CPU.

    python benchmarks/real_runs.py --data ../shared/data --output runs/real [--only ravdess meld6-kit] [--workers 2]

Runs in order, `workers` at a time with one thread each (on two cores 1.1 times the samples/s of one run with two
threads). Finished runs are reused, unfinished ones resumed. Every finished run is also tested with audio and vision
shuffled between samples. At the end (or at once, with --report) prints the Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEDS = (1111, 2222, 3333)
METRICS = {"ravdess": ("acc", "wf1"), "meld6": ("wf1", "acc", "macro_f1"), "mosi_utt": ("corr", "mae", "acc2", "acc7")}


@dataclass(frozen=True)
class Experiment:
    """A data set and the options that its three seeds share."""

    dataset: str
    name: str
    options: tuple[str, ...]


WITHHELD = ("--set", "data.without=[audio,vision]")
EXPERIMENTS = (
    Experiment("ravdess", "kit", ("--epochs", "5")),
    Experiment("mosi_utt", "kit", ("--epochs", "3")),
    Experiment("mosi_utt", "without-audio", ("--epochs", "3", *WITHHELD)),
    Experiment("meld6", "kit", ("--epochs", "3", "--limit-train", "1726")),
    Experiment("ravdess", "paper", ("--epochs", "2", "--limit-train", "480", "--recipe", "paper")),
    Experiment("ravdess", "withheld", ("--epochs", "2", "--limit-train", "320", *WITHHELD)),
    Experiment("meld6", "withheld", ("--epochs", "3", "--limit-train", "1726", *WITHHELD)),
)


def run_one(experiment: Experiment, seed: int, data: Path, output: Path) -> None:
    """Train (or resume, or reuse) one seed, then test it shuffled."""
    folder = output / f"{experiment.dataset}-{experiment.name}"
    yaml = data / experiment.dataset / f"{experiment.dataset}.yaml"
    log = folder / f"seed-{seed}.log"
    folder.mkdir(parents=True, exist_ok=True)
    msekit = [sys.executable, "-m", "msekit"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    train = [*msekit, "train", "--backbone", "smollm2-135m", "--dataset", str(yaml), "--output", str(folder)]
    with log.open("a") as stream:
        subprocess.run(
            [*train, "--seeds", str(seed), "--resume", *experiment.options],
            stderr=stream,
            check=True,
            env=environment,
        )
        shuffled = folder / f"seed-{seed}-shuffled.json"
        if "withheld" not in experiment.name and "without" not in experiment.name and not shuffled.exists():
            evaluate = [*msekit, "evaluate", str(folder / f"seed-{seed}"), "--shuffle", "--format", "json"]
            done = subprocess.run(evaluate, stdout=subprocess.PIPE, stderr=stream, check=True, env=environment)
            shuffled.write_bytes(done.stdout)
    print(f"done: {folder.name} seed {seed}", file=sys.stderr)


def reports(folder: Path, shuffled: bool = False) -> list[dict[str, Any]]:
    """The finished seeds' reports."""
    names = [f"seed-{seed}-shuffled.json" if shuffled else f"seed-{seed}/report.json" for seed in SEEDS]
    return [json.loads((folder / name).read_text()) for name in names if (folder / name).is_file()]


def line(title: str, found: list[dict[str, Any]], metrics: tuple[str, ...]) -> str:
    """A table row: per metric the seeds' values with their intervals, then mean ± standard deviation."""
    cells = []
    for metric in metrics:
        values = [report["metrics"][metric] for report in found]
        shown = ", ".join("undefined" if value is None else f"{value:.3f}" for value in values)
        interval = found[0]["confidence"].get(metric)
        shown += f" (first: [{interval[0]:.3f}, {interval[1]:.3f}])" if interval else ""
        defined = [value for value in values if value is not None]
        if len(defined) > 1:
            shown = f"**{statistics.fmean(defined):.3f} ± {statistics.stdev(defined):.3f}**: {shown}"
        cells.append(shown)
    return f"| {title} | {len(found)} | {' | '.join(cells)} |"


def tables(output: Path) -> str:
    """All finished experiments as Markdown."""
    parts = []
    for dataset, metrics in METRICS.items():
        rows = [f"| {dataset} | seeds | {' | '.join(metrics)} |", "|---|---|" + "---|" * len(metrics)]
        for experiment in EXPERIMENTS:
            folder = output / f"{dataset}-{experiment.name}"
            if experiment.dataset != dataset or not (found := reports(folder)):
                continue
            title = f"{experiment.name} (`{' '.join(experiment.options)}`)"
            rows.append(line(title, found, metrics))
            if shuffled := reports(folder, shuffled=True):
                rows.append(line(f"{experiment.name}, tested shuffled", shuffled, metrics))
            seconds = [round(report["train_seconds"]) for report in found]
            memory = max(report["peak_memory_bytes"] for report in found) / 1e9
            rows.append(f"| {experiment.name}: CPU seconds of training {seconds}, peak {memory:.2f} GB |" + " |" * 4)
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/real"))
    parser.add_argument("--only", nargs="*", default=[], help="data sets or data set-experiment names")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    wanted = [
        experiment
        for experiment in EXPERIMENTS
        if not options.only or {experiment.dataset, f"{experiment.dataset}-{experiment.name}"} & set(options.only)
    ]
    if not options.report:
        with ThreadPoolExecutor(options.workers) as pool:
            jobs = [pool.submit(run_one, e, s, options.data, options.output) for e in wanted for s in SEEDS]
            for job in jobs:
                job.result()
    print(tables(options.output))


if __name__ == "__main__":
    main()
