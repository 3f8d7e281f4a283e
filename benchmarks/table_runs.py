"""What the plug-in is worth: smollm2-135m on ravdess, meld6 and mosi_utt, three seeds each, on a CPU.

    python benchmarks/table_runs.py --data ../shared/data [--only ravdess meld6-linear options] [--report]

The paper's setting, recipe kit, its training options one at a time, the rivals, linear, prompt-only, EF-LSTM and a
linear text model: all with one budget per data set (`EPOCHS`; the classical ones train to their own end). One run at a
time, in the order of `ROWS`. Every finished run's report is kept in benchmarks/results/table_runs/ and not made again;
unfinished ones are resumed. Recipe kit's reports of real_runs.py count, where they are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEDS = (1111, 2222, 3333)
EPOCHS = {"ravdess": 5, "meld6": 3, "mosi_utt": 6}
METRICS = {"ravdess": ("acc", "wf1"), "meld6": ("wf1", "acc", "macro_f1"), "mosi_utt": ("corr", "mae", "acc2", "acc7")}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """A line of every data set's table."""

    name: str
    options: tuple[str, ...]
    """Of `msekit train`; for a baseline, its name alone."""
    group: str = "main"
    tasks: tuple[str, ...] = ("erc", "msa")


def setting(name: str, *settings: str, tasks: tuple[str, ...] = ("erc", "msa")) -> Row:
    """A training option on top of recipe kit."""
    return Row(name, tuple(part for each in settings for part in ("--set", each)), "options", tasks)


ROWS = (
    Row("kit", ()),
    Row("text-linear", ("text-linear",), "baseline"),
    Row("ef-lstm", ("ef-lstm",), "baseline"),
    Row("linear", ("--adapter", "linear")),
    Row("prompt", ("--adapter", "prompt")),
    Row("paper", ("--recipe", "paper")),
    Row("lf-lstm", ("lf-lstm",), "baseline"),
    Row("tfn", ("tfn",), "baseline"),
    Row("lmf", ("lmf",), "baseline"),
    Row("mlp", ("--adapter", "mlp"), "rivals"),
    Row("mag", ("--adapter", "mag"), "rivals"),
    Row("chfn", ("--adapter", "chfn"), "rivals"),
    setting("ema", "optim.ema=0.98"),
    setting("unit", "adapter.conditioning=unit", tasks=("msa",)),
    setting("expected", "loss.expected=1.0", tasks=("msa",)),
    setting("class-balanced", "loss.balance=class-balanced", tasks=("erc",)),
    setting("logit-adjusted", "loss.balance=logit-adjusted", tasks=("erc",)),
)
TASKS = {"ravdess": "erc", "meld6": "erc", "mosi_utt": "msa"}


def kept(dataset: str, row: Row, seed: int) -> Path:
    """Where a run's report is kept."""
    earlier = RESULTS / "real_runs" / f"{dataset}-{row.name}" / f"seed-{seed}.json"
    if row.name == "kit" and earlier.is_file():
        return earlier
    return RESULTS / "table_runs" / f"{dataset}-{row.name}" / f"seed-{seed}.json"


def options_of(dataset: str, row: Row) -> list[str]:
    """The command line's options but for seed and folder."""
    if row.group == "baseline":
        return ["baseline", *row.options]
    return ["--epochs", str(EPOCHS[dataset]), *row.options]


def run_one(dataset: str, row: Row, seed: int, data: Path, output: Path) -> None:
    """Train (or resume) one seed and keep its report; nothing to do where it is kept already."""
    file, options = kept(dataset, row, seed), options_of(dataset, row)
    if file.is_file():
        found = json.loads(file.read_text())["options"]
        assert found == options, f"{file} was made with {found}: remove it to run again"
        return
    folder = output / f"{dataset}-{row.name}"
    folder.mkdir(parents=True, exist_ok=True)
    common = ["--dataset", str(data / dataset / f"{dataset}.yaml"), "--output", str(folder), "--seeds", str(seed)]
    if row.group == "baseline":
        arguments = [*options, *common]
    else:
        arguments = ["train", "--backbone", "smollm2-135m", *common, "--resume", *options]
    with (folder / f"seed-{seed}.log").open("a") as log:
        command = [sys.executable, "-m", "msekit", *arguments]
        subprocess.run(command, stderr=log, check=True, env={"OMP_NUM_THREADS": "2"} | os.environ)
    report = json.loads((folder / f"seed-{seed}" / "report.json").read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"options": options, "test": report}, indent=1) + "\n")
    print(f"done: {folder.name} seed {seed}", file=sys.stderr, flush=True)


def shuffled_metrics(outcome: dict[str, Any]) -> dict[str, Any]:
    """The integrity check of a kept run; empty where there was nothing to shuffle."""
    check = outcome.get("shuffled") or outcome["test"].get("integrity") or {}
    return check.get("metrics", {})


def cell(metric: str, outcomes: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over the seeds, and the mean with audio and vision shuffled."""
    values, without = (
        [found[metric] for found in each if found.get(metric) is not None]
        for each in ([o["test"]["metrics"] for o in outcomes], [shuffled_metrics(o) for o in outcomes])
    )
    if not values:
        return "undefined"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}" + (f" ({statistics.fmean(without):.3f})" if without else "")


def tables() -> str:
    """All that is kept, as Markdown; in brackets the score with audio and vision shuffled."""
    parts = []
    for dataset, metrics in METRICS.items():
        lines = [
            f"| {dataset} | {' | '.join(metrics)} | trainable | seeds | command |",
            "|---" * (len(metrics) + 4) + "|",
        ]
        for row in ROWS:
            files = [file for seed in SEEDS if (file := kept(dataset, row, seed)).is_file()]
            if not files:
                continue
            outcomes = [json.loads(file.read_text()) for file in files]
            cells = [cell(metric, outcomes) for metric in metrics]
            size = outcomes[0]["test"].get("trainable_parameters") or 0
            command = " ".join(options_of(dataset, row))
            lines.append(f"| {row.name} | {' | '.join(cells)} | {size:,} | {len(files)} | `{command}` |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/tables"))
    parser.add_argument("--only", nargs="*", default=[], help="data sets, rows, groups, or data set-row names")
    parser.add_argument("--report", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    if not options.report:
        for row in ROWS:
            for seed in SEEDS:
                for dataset, task in TASKS.items():
                    names = {dataset, row.name, row.group, f"{dataset}-{row.name}"}
                    if task in row.tasks and (not options.only or names & set(options.only)):
                        run_one(dataset, row, seed, options.data, options.output)
    print(tables())


if __name__ == "__main__":
    main()
