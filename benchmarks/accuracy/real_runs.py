"""The real runs of accuracy/RESULTS.md: smollm2-135m on ravdess, meld6, mosi_utt and emodb, on a CPU.

    python -m benchmarks.accuracy.real_runs --data ../shared/data --output runs/real [--only ravdess] [--workers 2]

Runs in order, `workers` at a time with one thread each (on two cores 1.1 times the samples/s of one run with two
threads). Every finished run is also tested with audio and vision shuffled between samples, the first seed of recipe
`best` with each modality withheld and each shuffled. Its reports are kept in benchmarks/results/ and not made again
(--results elsewhere starts anew); unfinished runs are resumed. The features of emodb are extracted from its clips
first. At the end, or at once with --report, prints the Markdown tables.
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
FIVE = (*SEEDS, 4444, 5555)
METRICS = {
    "ravdess": ("acc", "wf1"),
    "meld6": ("wf1", "acc", "macro_f1"),
    "mosi_utt": ("corr", "mae", "acc2", "acc2_nonzero", "acc7"),
    "emodb": ("uar", "acc"),
}
EMODB_LABELS = "anger,boredom,disgust,fear,happiness,neutral,sadness"


@dataclass(frozen=True)
class Experiment:
    """A data set and the options that its three seeds share."""

    dataset: str
    name: str
    options: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    recipe: str = "kit"
    """Where the options name none."""


WITHHELD = ("--set", "data.without=[audio,vision]")
ONE = ("--epochs", "1")  # the opinion has learned before; what more epochs give is not measured yet
BEFORE = ("--context", "3", "--set", "data.text_limit=130")  # what was said before, and room for it
EXPERIMENTS = (
    Experiment("emodb", "best", ONE, FIVE, "best"),
    Experiment("ravdess", "best", ONE, FIVE, "best"),
    Experiment("mosi_utt", "best", ONE, FIVE, "best"),
    Experiment("meld6", "best", ONE, FIVE, "best"),
    Experiment("meld6", "best-context3", (*ONE, *BEFORE), SEEDS, "best"),
    Experiment("ravdess", "kit", ("--epochs", "5")),
    Experiment("mosi_utt", "kit", ("--epochs", "6")),
    Experiment("meld6", "kit", ("--epochs", "3")),
    Experiment("mosi_utt", "without-audio", ("--epochs", "6", *WITHHELD)),
    Experiment("ravdess", "paper", ("--epochs", "3", "--recipe", "paper")),
    Experiment("ravdess", "withheld", ("--epochs", "2", *WITHHELD)),
    Experiment("meld6", "withheld", ("--epochs", "3", *WITHHELD)),
)


def run_one(experiment: Experiment, seed: int, data: Path, output: Path, results: Path) -> None:
    """Train (or resume) one seed, test it shuffled, keep its reports; nothing to do where they are kept already."""
    kept = results / f"{experiment.dataset}-{experiment.name}" / f"seed-{seed}.json"
    if kept.is_file():
        options = json.loads(kept.read_text())["options"]
        assert tuple(options) == experiment.options, f"{kept} was made with {options}: remove it to run again"
        return
    folder = output / kept.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    yaml = description_of(experiment.dataset, data, output)
    msekit = [sys.executable, "-m", "msekit"]
    train = [*msekit, "train", "--backbone", "smollm2-135m", "--dataset", str(yaml), "--output", str(folder)]
    evaluate = [*msekit, "evaluate", str(folder / f"seed-{seed}"), "--shuffle", "--format", "json"]
    with (folder / f"seed-{seed}.log").open("a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        recipe = () if "--recipe" in experiment.options else ("--recipe", experiment.recipe)
        arguments = [*train, "--seeds", str(seed), "--resume", *recipe, *experiment.options]
        subprocess.run(arguments, stderr=log, check=True, env=environment)
        outcome = {
            "options": experiment.options,
            "test": json.loads((folder / f"seed-{seed}" / "report.json").read_text()),
        }
        if experiment.recipe == "best" and seed == SEEDS[0]:  # eight more tests
            apart = [*msekit, "evaluate", str(folder / f"seed-{seed}"), "--robustness", "--format", "json"]
            done = subprocess.run(apart, stdout=subprocess.PIPE, stderr=log, check=True, env=environment)
            outcome["apart"] = json.loads(done.stdout)["metrics"]
        if experiment.recipe != "best" and outcome["test"]["without"] == []:
            done = subprocess.run(evaluate, stdout=subprocess.PIPE, stderr=log, check=True, env=environment)
            outcome["shuffled"] = json.loads(done.stdout)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(outcome, indent=1) + "\n")
    print(f"done: {folder.name} seed {seed}", file=sys.stderr)


def description_of(dataset: str, data: Path, output: Path) -> Path:
    """A data set's YAML; emodb's features are extracted first, eGeMAPS descriptors of its clips."""
    if dataset != "emodb":
        return data / dataset / f"{dataset}.yaml"
    features = output / "emodb"
    if not (features / "emodb.yaml").is_file():
        extract = [sys.executable, "-m", "msekit", "extract", str(data / "emodb"), "--output", str(features)]
        table = ["--table", str(data / "emodb" / "clips.csv"), "--labels", EMODB_LABELS]
        subprocess.run([*extract, *table, "--audio", "egemaps", "--vision", "none"], check=True)
    return features / "emodb.yaml"


def line(title: str, reports: list[dict[str, Any]], metrics: tuple[str, ...]) -> str:
    """A table row: per metric mean ± standard deviation, and every seed's value with its 95 % interval."""
    cells = []
    for metric in metrics:
        values = [report["metrics"][metric] for report in reports]
        shown = ", ".join(
            cell(value, report["confidence"].get(metric)) for value, report in zip(values, reports, strict=True)
        )
        defined = [value for value in values if value is not None]
        if len(defined) > 1:
            shown = f"**{statistics.fmean(defined):.3f} ± {statistics.stdev(defined):.3f}**: {shown}"
        cells.append(shown)
    return f"| {title} | {' | '.join(cells)} |"


def cell(value: float | None, interval: list[float] | None) -> str:
    """A value with its interval."""
    if value is None:
        return "undefined"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{value:.3f}"


def tables(results: Path) -> str:
    """All finished experiments as Markdown."""
    parts = []
    for dataset, metrics in METRICS.items():
        rows, notes = [f"| {dataset} | {' | '.join(metrics)} |", "|---|" + "---|" * len(metrics)], []
        for experiment in (candidate for candidate in EXPERIMENTS if candidate.dataset == dataset):
            files = sorted((results / f"{dataset}-{experiment.name}").glob("seed-*.json"))
            outcomes = [json.loads(file.read_text()) for file in files]
            if not outcomes:
                continue
            reports = [outcome["test"] for outcome in outcomes]
            rows.append(line(experiment.name, reports, metrics))
            integrity = [report["integrity"] | {"confidence": {}} for report in reports if report.get("integrity")]
            shuffled = [outcome["shuffled"] for outcome in outcomes if "shuffled" in outcome]
            if shuffled or (experiment.recipe == "best" and (shuffled := integrity)):
                rows.append(line(f"{experiment.name}, tested shuffled", shuffled, metrics))
            apart = [outcome["apart"] for outcome in outcomes if "apart" in outcome]
            for case in [name for name in (apart[0] if apart else ()) if name != "all there"]:
                figures = [{"metrics": cases[case], "confidence": {}} for cases in apart]
                rows.append(line(f"{experiment.name}, {case}", figures, metrics))
            minutes = ", ".join(
                f"{report.get('train_cpu_seconds', report['train_seconds']) / 60:.0f}" for report in reports
            )
            memory = max(report["peak_memory_bytes"] for report in reports) / 1e9
            notes.append(
                f"- {experiment.name}: `{' '.join(experiment.options)}`; training {minutes} CPU-minutes a seed; "
                f"peak {memory:.2f} GB; {reports[0]['trainable_parameters']:,} trainable parameters"
            )
        if notes:
            parts.append("\n".join([*rows, "", *notes]))
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/real"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results" / "real_runs")
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
        if any(experiment.dataset == "emodb" for experiment in wanted):
            description_of("emodb", options.data, options.output)
        with ThreadPoolExecutor(options.workers) as pool:
            jobs = [
                pool.submit(run_one, e, s, options.data, options.output, options.results)
                for e in wanted
                for s in e.seeds
            ]
            for job in jobs:
                job.result()
    print(tables(options.results))


if __name__ == "__main__":
    main()
