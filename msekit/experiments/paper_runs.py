"""A table of the paper → the runs that make it, on its own backbones and data sets or on others.

Every run keeps a folder of its own, `<output>/<dataset>-<backbone>-<row>/seed-<seed>/`, so what is finished is never
made again. Runs go seed by seed: after the first seed every row of the table has a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msekit import paper
from msekit.adapters.ablations import Ablation
from msekit.backbones.catalogue import canonical_name
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.errors import LostProcessError, MsekitError, StoppedError, UnfinishedRunError
from msekit.reporter import Reporter
from msekit.runs.files import REPORT
from msekit.runs.report import read_report
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import RunRequest

SEEDS = (1111, 2222, 3333, 4444, 5555)
"""The paper's."""
TABLES = {"table2": paper.TABLE2, "table3": paper.TABLE3, "table4": paper.TABLE4, "table5": paper.TABLE5}
TASKS = {"table2": "msa", "table3": "erc"}
"""Tables 4 and 5 have both tasks."""
ABLATION_ROWS: dict[Ablation, str] = {
    "no-audio": "w/o A",
    "no-vision": "w/o V",
    "no-text": "w/o T",
    "no-audio-vision": "w/o A, V",
    "no-tgm": "w/o TGM",
    "no-msf": "w/o MSF",
}
FULL_ROW = "MSE-Adapter"
PLUGINS = {"best": "mse-states"}
"""Recipes whose plug-in is not the paper's, and its name: what makes Tables 2 and 3's own rows with them."""


@dataclass
class Experiment:
    """One row of a table on one data set, and its runs."""

    row: str
    """As the paper prints it."""
    key: str
    """Short name: that of the ablation or adapter."""
    backbone: str
    dataset: str
    """As the user wrote it: catalogue name, or path of a YAML."""
    adapter: str = "mse"
    """The adapter that makes the row."""
    ablate: str | None = None
    """The ablation that makes the row."""
    runs: list[RunConfig] = field(default_factory=list)
    """One per seed."""

    def request(self, common: RunRequest, folder: Path) -> RunRequest:
        """Its runs: what all rows share, its own settings, and its place in the table's folder."""
        return replace(
            common,
            backbone=self.backbone,
            dataset=self.dataset,
            adapter=self.adapter,
            ablate=self.ablate,
            output=folder / f"{Path(self.dataset).stem}-{Path(self.backbone).name}-{self.key}",
        )

    def finished(self) -> list[Path]:
        """Folders of the runs that are done."""
        return [run.output for run in self.runs if (run.output / REPORT).is_file()]


def experiments(
    table: str,
    backbones: list[str],
    datasets: list[str],
    find: Callable[[str], DatasetSpec] = resolve_dataset,
    recipe: str | None = None,
) -> list[Experiment]:
    """The rows of a table on the given backbones and data sets.

    Args:
        table: `table2` … `table5`.
        backbones: Empty for the paper's.
        datasets: Empty for the paper's.
        find: From a data set's name to what it is.
        recipe: What the user asks for; None for the default of the paper's plug-in.

    Raises:
        MsekitError: A data set of the other task than the table's; two of one name, whose runs would share folders.
    """
    datasets, backbones = list(dict.fromkeys(datasets)), list(dict.fromkeys(map(canonical_name, backbones)))
    _refuse_namesakes("data sets", datasets, [Path(dataset).stem for dataset in datasets])
    _refuse_namesakes("backbones", backbones, [Path(backbone).name for backbone in backbones])
    own = list(dict.fromkeys(dataset for dataset, _ in TABLES[table].columns))
    for dataset in datasets:
        task = find(dataset).task
        if TASKS.get(table, task) != task:
            other = next(name for name, its in TASKS.items() if its == task)
            raise MsekitError(f"{table} is about {TASKS[table]}, '{dataset}' is {task}", fix=f"Use {other}.")
    rows = []
    for dataset in datasets or own:
        for backbone in backbones or (paper.PAPER_BACKBONES if table in TASKS else ["chatglm3-6b"]):
            printed = paper.model_name(backbone)
            if table == "table4":
                rows += [Experiment(row, key, backbone, dataset, ablate=key) for key, row in ABLATION_ROWS.items()]
                rows.append(Experiment(FULL_ROW, "mse", backbone, dataset))
            else:
                names = ("mag", "chfn", "mse") if table == "table5" else (PLUGINS.get(recipe or "", "mse"),)
                rows += [Experiment(f"{n.upper()}-{printed}", n, backbone, dataset, adapter=n) for n in names]
    return rows


def _refuse_namesakes(what: str, written: list[str], names: list[str]) -> None:
    for name in (name for name in names if names.count(name) > 1):
        both = ", ".join(text for text, its in zip(written, names, strict=True) if its == name)
        raise MsekitError(
            f"two {what} are called '{name}', and their runs would share their folders",
            where=both,
            fix="Rename one, or give each its own command and --output.",
        )


def cost(rows: list[Experiment], samples: Callable[[RunConfig], int]) -> list[dict[str, Any]]:
    """What is left to do, a line per experiment.

    Args:
        rows: Experiments with their runs.
        samples: A run → the samples of one of its epochs.

    Returns:
        `{"row", "dataset", "backbone", "runs", "finished", "samples", "hours", "rough"}`: samples to pass through the
        backbone at most (every missing run to the end of its schedule), and hours at the speed of the runs already
        finished on that backbone and data set; before there is one, roughly by how fast this machine multiplies, or
        None.
    """
    speeds: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for folder in row.finished():
            report = read_report(folder)
            speed = report.train_samples_per_s if report else None
            speeds.setdefault((row.backbone, row.dataset), []).append(float(speed or 0))
    lines = []
    for row in rows:
        missing = len(row.runs) - len(row.finished())
        left = missing * samples(row.runs[0]) * row.runs[0].optim.epochs
        here = [speed for speed in speeds.get((row.backbone, row.dataset), []) if speed]
        lines.append(
            {
                "row": row.row,
                "dataset": row.runs[0].dataset,
                "backbone": row.backbone,
                "runs": len(row.runs),
                "finished": len(row.finished()),
                "samples": left,
                "hours": left / (sum(here) / len(here)) / 3600 if here else _rough_hours(row.runs[0], left),
                "rough": not here,
            }
        )
    return lines


def _rough_hours(run: RunConfig, samples: int) -> float | None:
    """Hours for so many samples, before a run of that kind has ended; None where nothing can be said."""
    from msekit.backbones.shape import shape_of
    from msekit.planning.duration import expected_seconds
    from msekit.planning.plan_run import plan_run

    if not samples:
        return 0.0
    try:
        plan = plan_run(run)
        expected = expected_seconds(plan, shape_of(run.backbone).parameters, samples, 1)
    except MsekitError:  # its configuration is not at hand
        return None
    return None if expected is None else expected[0] / 3600


def run_missing(rows: list[Experiment], reporter: Reporter) -> list[str]:
    """Train what is missing, seed by seed; unfinished runs are resumed, finished ones reused.

    Raises:
        MsekitError: A run cannot start, or a finished one was made with other settings.
        StoppedError: A signal asked to stop; the run has saved its state.

    Returns:
        What broke off (a loss that is not finite), a line each; the others go on.
    """
    from msekit.training.loop import train

    failures = []
    for number in range(len(rows[0].runs)):
        for row in rows:
            run = row.runs[number]
            reporter.note(f"{row.row} on {Path(run.dataset).stem}, {run.backbone}, seed {run.seed}")
            try:
                train(run, resume=True, reporter=reporter)
            except (StoppedError, LostProcessError):
                raise
            except UnfinishedRunError as error:
                failures.append(f"{row.row}, seed {run.seed}: {error}")
                reporter.warn(failures[-1])
    return failures
