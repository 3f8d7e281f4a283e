"""What `table_runs.py` runs: rows, data sets, budgets, and what they cost by arithmetic."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

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
PROMPT_FIRST = 1.5
"""How many times as quick the layout prompt-first is."""
PAPER_LAYOUT, QUICK_LAYOUT = "layout=paper", "layout=prompt-first"
RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Budget:
    """How long a data set's runs train, and how; None: on all samples, to the row's own end."""

    samples: int | None = None
    epochs: int | None = None
    settings: tuple[str, ...] = ()
    """Of all rows on the LLM but those that say otherwise."""

    @property
    def options(self) -> tuple[str, ...]:
        """Of the command line."""
        parts = (("--limit-train", self.samples), ("--epochs", self.epochs))
        return tuple(text for option, value in parts if value for text in (option, str(value)))

    @property
    def name(self) -> str:
        """What it adds to the name of a row's results: `-640x3`, `-640`, or nothing."""
        return (f"-{self.samples}" if self.samples else "") + (
            f"x{self.epochs}" if self.samples and self.epochs else ""
        )


QUICK = (QUICK_LAYOUT,)
SHORT, OWN_END = Budget(640, 3, ("optim.batch_size=8", *QUICK)), Budget()
EPOCHS = {"ravdess": 5, "meld6": 3, "mosi_utt": 6}
LONG = {dataset: Budget(epochs=epochs) for dataset, epochs in EPOCHS.items()}
SYNTHETIC = {"synthetic-erc": Budget(480, 3, SHORT.settings), "synthetic-msa": Budget(960, 5, SHORT.settings)}


@dataclass(frozen=True)
class Row:
    """A line of every data set's table."""

    name: str
    options: tuple[str, ...] = ()
    """Of `msekit train`, but for settings; for a classical model, its name alone."""
    settings: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("erc", "msa")

    @property
    def classical(self) -> bool:
        """Whether it is a model without an LLM."""
        return bool(self.options) and not self.options[0].startswith("-")

    def on(self, budget: Budget) -> tuple[str, ...]:
        """Its options on a budget, whose settings give way to its own."""
        own = {setting.partition("=")[0] for setting in self.settings}
        settings = (*(setting for setting in budget.settings if setting.partition("=")[0] not in own), *self.settings)
        flags = (
            setting.partition("=")[::2] if setting.startswith("layout") else ("set", setting) for setting in settings
        )
        return (*budget.options, *(part for name, value in flags for part in (f"--{name}", value)), *self.options)


def option(name: str, *settings: str, task: str | None = None) -> Row:
    """A training option on top of recipe kit; it is measured against kit, so the shuffled test is left out."""
    options = ("--recipe", "kit")
    return Row(name, options, (*settings, "evaluation.integrity=false"), tasks=(task,) if task else ("erc", "msa"))


KIT, PAPER = Row("kit", ("--recipe", "kit")), Row("paper", ("--recipe", "paper"), (PAPER_LAYOUT,))
BEST = Row("best", ("--recipe", "best"))
LINEAR, PROMPT = (Row(name, ("--adapter", name)) for name in ("linear", "prompt"))
CLASSICAL = tuple(Row(name, (name,)) for name in ("text-linear", "ef-lstm", "lf-lstm", "tfn", "lmf"))
BF16 = option("bf16", "model.dtype=bf16")
"""Whose products are computed in fp32 and rounded (`imitate_bf16.py`), so that it can be run on any CPU."""
OPTIONS = (
    option("paper-conditioning", "adapter.conditioning=paper"),  # kit: unit
    option("centred", "adapter.conditioning=centred", task="msa"),
    option("cross-entropy", "loss.expected=0", task="msa"),  # kit: expected, 3
    option("number-token", "loss.expected=0", "loss.number_token=0.6", task="msa"),
    option("class-balanced", "loss.balance=class-balanced", task="erc"),
    option("logit-adjusted", "loss.balance=logit-adjusted", task="erc"),
    option("ema", "optim.ema=0.98"),
    option("modality-dropout", "data.modality_dropout=0.3"),
    option("prompt-last", PAPER_LAYOUT),
    BF16,
)
ABLATIONS = ("no-audio", "no-vision", "no-text", "no-audio-vision", "no-tgm", "no-msf")
CEILINGS = {"kit": "full", "no-audio": "no-audio", "no-vision": "no-vision", "no-audio-vision": "text-only"}
"""Rows of the synthetic sets → what `msekit.data.readers.synthetic.ceiling` calls them."""
PARTS: dict[str, tuple[tuple[Row, ...], tuple[str, ...]]] = {
    "rows": ((KIT, PAPER, LINEAR, PROMPT, *CLASSICAL[:2]), REAL),
    "options": (OPTIONS, REAL),
    "table4": ((Row("table4"),), ("ravdess", "meld6")),
    "quick": ((Row("prompt-first", ("--recipe", "kit"), QUICK), Row("best", ("--recipe", "best"), QUICK)), REAL),
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
    return LONG[dataset] if part in ("quick", "long") else SHORT


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


def seconds(dataset: str, budget: Budget, options: list[str]) -> float:
    """Of one core: training, validation after every epoch, and one or two passes through the test split."""
    tests = 1 if "evaluation.integrity=false" in options else 2
    quicker = PROMPT_FIRST if "prompt-first" in options else 1
    train, valid, test = SIZES[dataset]
    epochs = budget.epochs or 1
    passes = epochs * min(budget.samples or train, train) / TRAIN_SPEED[TASKS[dataset]]
    return START + (passes + (epochs * valid + tests * test) / TEST_SPEED) / quicker


def kept(results: Path, dataset: str, row: str, budget: Budget, seed: int) -> Path:
    """Where a run's report is kept. Recipe kit's full runs may have been made by real_runs.py."""
    earlier = RESULTS / "real_runs" / f"{dataset}-{row}" / f"seed-{seed}.json"
    if row == "kit" and budget == LONG.get(dataset) and earlier.is_file():
        return earlier
    return results / f"{dataset}-{row}{budget.name}" / f"seed-{seed}.json"


def job(part: str, dataset: str, row: Row, seed: int, where: argparse.Namespace) -> Job:
    """The command of one row, data set and seed; of part table4, of all its rows."""
    budget = budget_of(part, dataset, row)
    program = ["-m", "benchmarks.accuracy.imitate_bf16"] if row is BF16 else ["-m", "msekit"]
    msekit = [sys.executable, *program]
    named = dataset if dataset in SYNTHETIC else str(where.data / dataset / f"{dataset}.yaml")
    common = ["--dataset", named, "--seeds", str(seed), "--output"]
    table4 = where.output / "table4"
    places = {key: table4 / f"{dataset}-{where.backbone}-{key}" / f"seed-{seed}" for key in (*ABLATIONS, "mse")}
    if part == "table4":
        row_options = [*KIT.on(budget)]
        options = {key: [*row_options, *(("--ablate", key) if key != "mse" else ())] for key in places}
        files = {key: kept(where.results, dataset, key if key != "mse" else "kit", budget, seed) for key in places}
        command = ["reproduce", "table4", "--backbone", where.backbone, *common, str(table4), *row_options]
        return Job(
            part,
            f"{dataset}-table4",
            seed,
            [*msekit, *command],
            len(places) * seconds(dataset, budget, row_options),
            {places[key]: files[key] for key in places},
            {files[key]: options[key] for key in places},
        )
    file = kept(where.results, dataset, row.name, budget, seed)
    if row.classical:
        row_options, cost = ["baseline", *row.options, *budget.options], float(BASELINE)
        folder = where.output / file.parent.name
        command = [*row_options, *common, str(folder)]
    else:
        row_options = [*row.on(budget)]
        cost = seconds(dataset, budget, row_options)
        # the full row of Table 4 and the row kit are the same run, in the same folder
        shared = row.name == "kit" and budget == SHORT and dataset in PARTS["table4"][1]
        folder = places["mse"].parent if shared else where.output / file.parent.name
        command = ["train", "--backbone", where.backbone, *common, str(folder), "--resume", *row_options]
    place = folder / f"seed-{seed}"
    return Job(part, f"{dataset}-{row.name}", seed, [*msekit, *command], cost, {place: file}, {file: row_options})


def jobs(where: argparse.Namespace) -> list[Job]:
    """All that is asked for, in order. Recipe kit's run may be in two parts: what comes later finds it finished."""
    tasks: list[Job] = []
    for part, (rows, datasets) in PARTS.items():
        for seed in where.seeds[:1] if part == "synthetic" else where.seeds:
            for row in rows:
                for dataset in datasets:
                    names = {part, dataset, row.name, f"{dataset}-{row.name}"}
                    wanted = names & set(where.only) if where.only else part not in ON_REQUEST
                    if part in ON_REQUEST and part not in where.only:
                        wanted = False
                    if wanted and TASKS[dataset] in row.tasks:
                        tasks.append(job(part, dataset, row, seed, where))
    return tasks


def costs(tasks: list[Job]) -> str:
    """Runs and core-minutes, part by part."""
    lines = ["| part | runs | finished | core-minutes left |", "|---|---:|---:|---:|"]
    total, counted = 0.0, set[Path]()
    for part in dict.fromkeys(task.part for task in tasks):
        runs = missing = left = 0.0
        for task in (task for task in tasks if task.part == part):
            ours, to_do = (set(files) - counted for files in (task.keeps.values(), task.missing))
            counted |= ours
            runs, missing = runs + len(ours), missing + len(to_do)
            left += task.seconds * len(to_do) / len(task.keeps) / 60
        total += left
        lines.append(f"| {part} | {runs:.0f} | {runs - missing:.0f} | {left:.0f} |")
    return "\n".join([*lines, f"| together | | | {total:.0f} |"])
