"""What the plug-in is worth: smollm2-135m on ravdess, meld6, mosi_utt and the synthetic sets, on a CPU.

    python benchmarks/table_runs.py --data ../shared/data --plan                      # what it would cost
    python benchmarks/table_runs.py --data ../shared/data [--only rows ravdess-ema]   # what is missing of it
    python benchmarks/table_runs.py --report                                          # what is finished, as Markdown

Two runs at a time with one thread each. Every finished run's report is kept in results/table_runs/ and not made again;
an unfinished one goes on where it stopped. Parts, in the order they are run; within a part seed by seed, so that after
the first seed every row has a number. Core-minutes are by arithmetic (`seconds`) with nothing finished, a run that
two parts share counted in the first; without rivals and long, which only --only starts, four and a half hours on two
cores. All but the long runs hold the LLM in w8a8, which wants a CPU; four earlier runs in fp32 on an otherwise idle
machine took .75 to 1.15 of what was reckoned.

| part | what | runs | core-minutes |
|---|---|---:|---:|
| rows | kit, the paper's setting, linear, prompt-only, EF-LSTM, text, on the three sets; 320 samples x 2 | 54 | 127 |
| options | one training option at a time on recipe kit; same sets and budget, not tested shuffled | 57 | 158 |
| table4 | `msekit reproduce table4` on ravdess and meld6, same budget; its full row is rows' kit | 36 | 105 |
| synthetic | full model and ablations beside what is possible, one seed; erc 480 samples x 3, msa 960 x 5 | 8 | 83 |
| baselines | all classical models on all samples, to their own end | 45 | 45 |
| rivals | mlp, mag, chfn; same sets and budget | 27 | 82 |
| long | kit, the paper's setting, linear, prompt-only on all samples for 3 to 6 epochs | 36 | 922 |
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEEDS = (1111, 2222, 3333)
REAL = ("ravdess", "meld6", "mosi_utt")
TASKS = {"ravdess": "erc", "meld6": "erc", "mosi_utt": "msa", "synthetic-erc": "erc", "synthetic-msa": "msa"}
SIZES = {
    "ravdess": (960, 120, 120),
    "meld6": (3452, 428, 476),
    "mosi_utt": (1058, 223, 229),
    "synthetic-erc": (960, 160, 320),
    "synthetic-msa": (960, 160, 320),
}
"""Samples of train, valid and test."""
METRICS = {
    "ravdess": ("acc", "wf1"),
    "meld6": ("wf1", "acc", "macro_f1"),
    "mosi_utt": ("corr", "mae", "acc2", "acc7"),
    "synthetic-erc": ("acc",),
    "synthetic-msa": ("corr", "mae"),
}
TRAIN_SPEED = {"erc": 6, "msa": 4}
"""Samples/s of one core in training smollm2-135m in fp32; recipe kit for intensities scores every label."""
TEST_SPEED, START, BASELINE = 12, 30, 60
"""Samples/s in testing, in fp32; seconds of a start; seconds of a classical model."""
INTEGERS = 1.4
"""How many times as quick w8a8 is."""
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Budget:
    """How long a data set's runs train; None: on all samples, to the row's own end."""

    samples: int | None
    epochs: int | None

    @property
    def options(self) -> tuple[str, ...]:
        """Of the command line."""
        parts = (("--limit-train", self.samples), ("--epochs", self.epochs))
        return tuple(text for option, value in parts if value for text in (option, str(value)))

    @property
    def held(self) -> tuple[str, ...]:
        """Options of runs on the LLM: in integers, but for long ones, which go on from real_runs.py's in fp32."""
        return () if self in LONG.values() else ("--set", "model.quantization=w8a8")

    @property
    def name(self) -> str:
        """What it adds to the name of a row's results: `-320x2`, `-320`, or nothing."""
        return (f"-{self.samples}" if self.samples else "") + (
            f"x{self.epochs}" if self.samples and self.epochs else ""
        )


SHORT, OWN_END = Budget(320, 2), Budget(None, None)
LONG = {"ravdess": Budget(None, 5), "meld6": Budget(None, 3), "mosi_utt": Budget(None, 6)}
SYNTHETIC = {"synthetic-erc": Budget(480, 3), "synthetic-msa": Budget(960, 5)}


@dataclass(frozen=True)
class Row:
    """A line of every data set's table."""

    name: str
    options: tuple[str, ...] = ()
    """Of `msekit train`; for a classical model, its name alone."""
    tasks: tuple[str, ...] = ("erc", "msa")

    @property
    def classical(self) -> bool:
        """Whether it is a model without an LLM."""
        return bool(self.options) and not self.options[0].startswith("-")


def option(name: str, *settings: str, task: str | None = None) -> Row:
    """A training option on top of recipe kit; it is measured against kit, so the shuffled test is left out."""
    flags = tuple(part for each in (*settings, "evaluation.integrity=false") for part in ("--set", each))
    return Row(name, flags, (task,) if task else ("erc", "msa"))


KIT = Row("kit")
PAPER, LINEAR, PROMPT = Row("paper", ("--recipe", "paper")), *(Row(n, ("--adapter", n)) for n in ("linear", "prompt"))
CLASSICAL = tuple(Row(name, (name,)) for name in ("text-linear", "ef-lstm", "lf-lstm", "tfn", "lmf"))
OPTIONS = (
    option("paper-conditioning", "adapter.conditioning=paper"),  # kit: unit
    option("centred", "adapter.conditioning=centred", task="msa"),
    option("cross-entropy", "loss.expected=0", task="msa"),  # kit: expected, 3
    option("number-token", "loss.expected=0", "loss.number_token=0.6", task="msa"),
    option("class-balanced", "loss.balance=class-balanced", task="erc"),
    option("logit-adjusted", "loss.balance=logit-adjusted", task="erc"),
    option("ema", "optim.ema=0.98"),
    option("modality-dropout", "data.modality_dropout=0.3"),
    Row("prompt-first", ("--layout", "prompt-first", "--set", "evaluation.integrity=false")),
)
ABLATIONS = ("no-audio", "no-vision", "no-text", "no-audio-vision", "no-tgm", "no-msf")
CEILINGS = {"kit": "full", "no-audio": "no-audio", "no-vision": "no-vision", "no-audio-vision": "text-only"}
"""Rows of the synthetic sets → what `msekit.data.synthetic.ceiling` calls them."""
PARTS: dict[str, tuple[tuple[Row, ...], tuple[str, ...]]] = {
    "rows": ((KIT, PAPER, LINEAR, PROMPT, *CLASSICAL[:2]), REAL),
    "options": (OPTIONS, REAL),
    "table4": ((Row("table4"),), ("ravdess", "meld6")),
    "synthetic": ((KIT, *(Row(n, ("--ablate", n)) for n in CEILINGS if n != "kit")), tuple(SYNTHETIC)),
    "baselines": (CLASSICAL, REAL),
    "rivals": (tuple(Row(name, ("--adapter", name)) for name in ("mlp", "mag", "chfn")), REAL),
    "long": ((KIT, PAPER, LINEAR, PROMPT), REAL),
}
ON_REQUEST = ("rivals", "long")


def budget_of(part: str, dataset: str, row: Row) -> Budget:
    """How long a row trains on a data set."""
    if part == "synthetic":
        return SYNTHETIC[dataset]
    if row.classical:
        return OWN_END if part == "baselines" else Budget(SHORT.samples, None)
    return LONG[dataset] if part == "long" else SHORT


@dataclass
class Job:
    """One command, and the reports that it leaves to be kept."""

    part: str
    name: str
    seed: int
    command: list[str]
    seconds: float
    """Of one core, by arithmetic."""
    keeps: dict[Path, Path]
    """Run folder → where its report is kept."""
    options: dict[Path, list[str]] = field(default_factory=dict)
    """Kept report → the command line's options but for seed and folder."""

    @property
    def missing(self) -> list[Path]:
        """Reports that are still to be made."""
        return [file for file in self.keeps.values() if not file.is_file()]


def seconds(dataset: str, budget: Budget, tests: int) -> float:
    """Of one core: training, validation after every epoch, and so many passes through the test split."""
    train, valid, test = SIZES[dataset]
    epochs = budget.epochs or 1
    passes = epochs * min(budget.samples or train, train) / TRAIN_SPEED[TASKS[dataset]]
    return START + (passes + (epochs * valid + tests * test) / TEST_SPEED) / (INTEGERS if budget.held else 1)


def kept(results: Path, dataset: str, row: str, budget: Budget, seed: int) -> Path:
    """Where a run's report is kept. Recipe kit's full runs may have been made by real_runs.py."""
    earlier = RESULTS / "real_runs" / f"{dataset}-{row}" / f"seed-{seed}.json"
    if row == "kit" and budget == LONG.get(dataset) and earlier.is_file():
        return earlier
    return results / f"{dataset}-{row}{budget.name}" / f"seed-{seed}.json"


def job(part: str, dataset: str, row: Row, seed: int, where: argparse.Namespace) -> Job:
    """The command of one row, data set and seed; of part table4, of all its rows."""
    budget, msekit = budget_of(part, dataset, row), [sys.executable, "-m", "msekit"]
    named = dataset if dataset in SYNTHETIC else str(where.data / dataset / f"{dataset}.yaml")
    common = ["--dataset", named, "--seeds", str(seed), "--output"]
    table4 = where.output / "table4"
    places = {key: table4 / f"{dataset}-{where.backbone}-{key}" / f"seed-{seed}" for key in (*ABLATIONS, "mse")}
    if part == "table4":
        given = [*budget.options, *budget.held]
        options = {key: [*given, *(("--ablate", key) if key != "mse" else ())] for key in places}
        files = {key: kept(where.results, dataset, key if key != "mse" else "kit", budget, seed) for key in places}
        command = ["reproduce", "table4", "--backbone", where.backbone, *common, str(table4), *given]
        return Job(
            part,
            f"{dataset}-table4",
            seed,
            [*msekit, *command],
            len(places) * seconds(dataset, budget, tests=2),
            {places[key]: files[key] for key in places},
            {files[key]: options[key] for key in places},
        )
    file = kept(where.results, dataset, row.name, budget, seed)
    if row.classical:
        options, cost = ["baseline", *row.options, *budget.options], BASELINE
        folder = where.output / file.parent.name
        command = [*options, *common, str(folder)]
    else:
        options = [*budget.options, *budget.held, *row.options]
        cost = seconds(dataset, budget, tests=1 if "evaluation.integrity=false" in options else 2)
        # the full row of Table 4 and the row kit are the same run, in the same folder
        shared = row.name == "kit" and budget == SHORT and dataset in PARTS["table4"][1]
        folder = places["mse"].parent if shared else where.output / file.parent.name
        command = ["train", "--backbone", where.backbone, *common, str(folder), "--resume", *options]
    place = folder / f"seed-{seed}"
    return Job(part, f"{dataset}-{row.name}", seed, [*msekit, *command], cost, {place: file}, {file: options})


def jobs(where: argparse.Namespace) -> list[Job]:
    """All that is asked for, in order. Recipe kit's run may be in two parts: what comes later finds it finished."""
    found: list[Job] = []
    for part, (rows, datasets) in PARTS.items():
        for seed in where.seeds[:1] if part == "synthetic" else where.seeds:
            for row in rows:
                for dataset in datasets:
                    names = {part, dataset, row.name, f"{dataset}-{row.name}"}
                    wanted = names & set(where.only) if where.only else part not in ON_REQUEST
                    if part in ON_REQUEST and part not in where.only:
                        wanted = False
                    if wanted and TASKS[dataset] in row.tasks:
                        found.append(job(part, dataset, row, seed, where))
    return found


def costs(found: list[Job]) -> str:
    """Runs and core-minutes, part by part."""
    lines = ["| part | runs | finished | core-minutes left |", "|---|---:|---:|---:|"]
    total, counted = 0.0, set[Path]()
    for part in dict.fromkeys(each.part for each in found):
        runs = missing = left = 0.0
        for each in (each for each in found if each.part == part):
            ours, to_do = (set(files) - counted for files in (each.keeps.values(), each.missing))
            counted |= ours
            runs, missing = runs + len(ours), missing + len(to_do)
            left += each.seconds * len(to_do) / len(each.keeps) / 60
        total += left
        lines.append(f"| {part} | {runs:.0f} | {runs - missing:.0f} | {left:.0f} |")
    return "\n".join([*lines, f"| together | | | {total:.0f} |"])


def run(each: Job, logs: Path) -> None:
    """Run (or resume) a job and keep its reports.

    Raises:
        CalledProcessError: The command failed; its log says why.
    """
    started = time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (logs / f"{each.part}-{each.name}-{each.seed}.log").open("a") as log:
        subprocess.run(each.command, stdout=log, stderr=log, check=True, env=environment)
    for folder, file in each.keeps.items():
        report = json.loads((folder / "report.json").read_text())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"options": each.options[file], "test": report}, indent=1) + "\n")
    took = (time.monotonic() - started) / 60
    print(f"done: {each.part} {each.name} seed {each.seed}, {took:.1f} min", file=sys.stderr, flush=True)


def run_all(found: list[Job], workers: int, logs: Path) -> list[str]:
    """Run what is missing; what failed, a line each."""
    for each in found:
        for file in set(each.keeps.values()) - set(each.missing):
            options = json.loads(file.read_text())["options"]
            if options != each.options[file]:
                raise SystemExit(f"{file} was made with {options}: remove it to run again")
    failures = []
    with ThreadPoolExecutor(workers) as pool:
        started = [(each, pool.submit(run, each, logs)) for each in found if each.missing]
        try:
            for each, future in started:
                try:
                    future.result()
                except subprocess.CalledProcessError as error:
                    failures.append(f"failed: {each.part} {each.name} seed {each.seed}: exit code {error.returncode}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def paper_tables(where: argparse.Namespace) -> None:
    """Table 4 beside ours, as `msekit reproduce` prints it, where all its runs are in the output folder."""
    for dataset in PARTS["table4"][1]:
        all_seeds = [job("table4", dataset, Row("table4"), seed, where) for seed in where.seeds]
        if all((folder / "report.json").is_file() for each in all_seeds for folder in each.keeps):
            command = list(all_seeds[0].command)
            command[command.index("--seeds") + 1] = ",".join(map(str, where.seeds))
            done = subprocess.run([*command, "--report", "--format", "markdown"], stdout=subprocess.PIPE, check=True)
            (where.results / f"table4-{dataset}.md").write_bytes(done.stdout)


def cell(metric: str, outcomes: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over the seeds, and the mean with audio and vision shuffled."""
    checks = [o.get("shuffled") or o["test"].get("integrity") or {} for o in outcomes]
    values, without = (
        [found[metric] for found in each if found.get(metric) is not None]
        for each in ([o["test"]["metrics"] for o in outcomes], [check.get("metrics", {}) for check in checks])
    )
    if not values:
        return "undefined"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}" + (f" ({statistics.fmean(without):.3f})" if without else "")


def ceilings(dataset: str, row: str, metrics: tuple[str, ...]) -> str:
    """The best that is possible on a synthetic set; empty elsewhere."""
    if dataset not in SYNTHETIC:
        return ""
    from msekit.data.synthetic import ceiling

    best = ceiling(dataset)[CEILINGS[row]]
    return ", ".join(f"{m} {'undefined' if best[m] is None else f'{best[m]:.3f}'}" for m in metrics)


def tables(found: list[Job]) -> str:
    """All that is kept, as Markdown; in brackets the score with audio and vision shuffled."""
    lines: dict[tuple[str, str], dict[str, list[Path]]] = {}  # (data set, samples) → row → its seeds' reports
    for each in found:
        dataset = next(name for name in TASKS if each.name.startswith(name))
        for file in (file for file in each.keeps.values() if file.is_file()):
            row, samples = re.fullmatch(r"(.+?)(-\d+)?(?:x\d+)?", file.parent.name.removeprefix(f"{dataset}-")).groups()
            files = lines.setdefault((dataset, samples or ""), {}).setdefault(row, [])
            files += [file] if file not in files else []
    parts = []
    for (dataset, _), rows in sorted(lines.items()):
        metrics = METRICS[dataset]
        extra = ["best possible"] if dataset in SYNTHETIC else []
        headings = [dataset, *metrics, *extra, "trainable", "seeds", "options"]
        body = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        for row, files in rows.items():
            outcomes = [json.loads(file.read_text()) for file in sorted(files)]
            size = f"{outcomes[0]['test'].get('trainable_parameters') or 0:,}"
            shown = [row, *(cell(metric, outcomes) for metric in metrics)]
            shown += [ceilings(dataset, row, metrics)] if extra else []
            shown += [size, str(len(files)), f"`{' '.join(outcomes[0]['options'])}`"]
            body.append(f"| {' | '.join(shown)} |")
        parts.append("\n".join(body))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/tables"))
    parser.add_argument("--results", type=Path, default=RESULTS / "table_runs", help="elsewhere for another backbone")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--only", nargs="*", default=[], help="parts, data sets, rows, or data set-row names")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--plan", action="store_true", help="only print what it would cost")
    parser.add_argument("--report", action="store_true", help="only print what is finished, all of it")
    where = parser.parse_args(arguments)
    if where.report:
        where.only = list(PARTS)
    found, failures = jobs(where), []
    if not where.report:
        print(costs(found), file=sys.stderr, flush=True)
        if where.plan:
            return 0
        failures = run_all(found, where.workers, where.output / "logs")
        if any(each.part == "table4" for each in found):
            paper_tables(where)
    print(tables(found))
    print("\n".join(failures), file=sys.stderr, end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
