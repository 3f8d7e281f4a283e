"""Does dialogue context help? smollm2-135m on meld6, `--context 0` against `--context 3`, the same three seeds each.

    python -m benchmarks.accuracy.context --data ../shared/data --output runs/context [--workers 2] [--epochs 3]
    python -m benchmarks.accuracy.context --data ../shared/data --tokens       # only: how many tokens the context adds

Every finished run's reports are kept in benchmarks/results/context/ and not made again (--results elsewhere starts
anew); unfinished runs are resumed. Prints a Markdown table with the difference seed by seed. On two CPU cores the six
runs take hours; `--epochs 1 --limit-train 64 --seeds 1111 --results runs/smoke` only shows that all of it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.accuracy.real_runs import SEEDS, Experiment, line, run_one
from msekit.backbones.checkpoints.smollm2 import smollm2_folder
from msekit.data.batches.dialogue import in_context
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import SPLITS, resolve_dataset

METRICS = ("wf1", "acc", "macro_f1")


def token_table(data: Path, count: int) -> str:
    """How long meld6's texts are with and without context, for the set's limit and for twice that."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder(), local_files_only=True)
    spec = resolve_dataset(str(data / "meld6" / "meld6.yaml"))
    cache = prepare(spec)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    rows = [
        "| split | limit | own tokens | context tokens | both: mean, 95 %, longest | utterances | left out |",
        "|---|---|---|---|---|---|---|",
    ]
    for split in SPLITS:
        for limit in (spec.text_limit, 2 * spec.text_limit):
            table = cache.split(split)
            own = [encode(text)[:limit] for text in table.texts]
            placed = in_context(table, own, encode, limit, count)
            lengths = np.array([len(ids) for ids in placed.ids])
            means = f"{np.mean([len(ids) for ids in own]):.1f} | {placed.lengths.mean():.1f}"
            spread = f"{lengths.mean():.1f}, {np.percentile(lengths, 95):.0f}, {lengths.max()}"
            mean_used = f"{placed.utterances / len(table):.2f}"
            rows.append(f"| {split} | {limit} | {means} | {spread} | {mean_used} | {placed.left_out} |")
    return "\n".join(rows)


def result_table(results: Path, experiments: tuple[Experiment, ...], seeds: list[int]) -> str:
    """Both settings, and what the context changes seed by seed."""
    reports = [
        [
            json.loads((results / f"{experiment.dataset}-{experiment.name}" / f"seed-{seed}.json").read_text())["test"]
            for seed in seeds
        ]
        for experiment in experiments
    ]
    rows = [f"| meld6 | {' | '.join(METRICS)} |", "|---|" + "---|" * len(METRICS)]
    rows += [line(experiment.name, runs, METRICS) for experiment, runs in zip(experiments, reports, strict=True)]
    cells = []
    for metric in METRICS:
        changes = [b["metrics"][metric] - a["metrics"][metric] for a, b in zip(*reports, strict=True)]
        cells.append(f"**{statistics.fmean(changes):+.3f}**: {', '.join(f'{change:+.3f}' for change in changes)}")
    return "\n".join([*rows, f"| difference | {' | '.join(cells)} |"])


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/context"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results" / "context")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--epochs", default="3")
    parser.add_argument("--limit-train")
    parser.add_argument("--context", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokens", action="store_true")
    options = parser.parse_args()
    if options.tokens:
        print(token_table(options.data, options.context))
        return
    shared = ("--epochs", options.epochs, *(("--limit-train", options.limit_train) if options.limit_train else ()))
    experiments = tuple(
        Experiment("meld6", f"context-{count}", (*shared, "--context", str(count))) for count in (0, options.context)
    )
    with ThreadPoolExecutor(options.workers) as pool:
        jobs = [
            pool.submit(run_one, experiment, seed, options.data, options.output, options.results)
            for seed in options.seeds
            for experiment in experiments
        ]
        for job in jobs:
            job.result()
    print(result_table(options.results, experiments, options.seeds))


if __name__ == "__main__":
    main()
