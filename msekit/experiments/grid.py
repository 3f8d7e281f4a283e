"""The runs of a grid file: every combination of settings is one `msekit train`, checked before any begins.

A grid file has what all runs share and what varies:

    output: runs/rates
    base: {backbone: smollm2-135m, dataset: meld6.yaml, optim.epochs: 5}
    grid: {seed: [1, 2, 3], optim.lr: [1e-3, 2e-3]}
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError, nearest
from msekit.json_file import read_json
from msekit.runs.history import read_history
from msekit.runs.report import read_report
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import DEFAULT_SEED, RunRequest, parse_seeds, plan_runs
from msekit.yaml_file import read_mapping

OPTIONS = ("backbone", "dataset", "source", "recipe", "config")
"""Settings that `msekit train` has options for; any other is a `--set`."""
KEYS = ("output", "base", "grid")
ARGUMENTS = "arguments.json"


@dataclass
class Job:
    """One run of the grid."""

    name: str
    settings: dict[str, Any]
    """What varies."""
    folder: Path
    """`--output` of the run, which holds one seed's folder and `log.txt`."""
    arguments: list[str]
    """Of `msekit train`."""
    seed: int
    config: RunConfig | None = None
    """Its settings."""
    state: str = "waiting"
    """waiting, running, finished, failed or stopped."""
    device: str = ""
    attempts: int = 0
    seconds: float = 0.0
    problem: str = ""
    """The last line of a failed run's log."""

    @property
    def run(self) -> Path:
        """The seed's folder."""
        return self.folder / f"seed-{self.seed}"

    def started_as(self) -> list[str] | None:
        """The arguments that an earlier sweep gave this run."""
        path = self.folder / ARGUMENTS
        return read_json(path) if path.is_file() else None

    def report(self) -> dict[str, Any] | None:
        """The finished run's report."""
        report = read_report(self.run)
        return None if report is None else report.document()

    def latest(self) -> str:
        """The last epoch's figures, while it trains."""
        history = read_history(self.run)
        if not history:
            return ""
        last = history[-1]
        return f"epoch {last.epoch}, train {last.train_loss:.3f}, valid {last.valid_loss:.3f}"


def read_grid(file: Path) -> tuple[Path, list[Job]]:
    """A grid file's output folder and its runs, checked.

    Raises:
        MsekitError: An unknown key, an empty grid, or a setting that `msekit train` would refuse.
    """
    raw = read_mapping(file, "grid file")
    for key in raw:
        if key not in KEYS:
            raise MsekitError(f"unknown key '{key}'", where=file, fix=nearest(key, KEYS))
    base, grid = raw.get("base") or {}, raw.get("grid") or {}
    if not isinstance(base, dict) or not isinstance(grid, dict) or not grid:
        raise MsekitError("a grid file needs `grid:` with a list per setting", where=file)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise MsekitError(f"grid setting '{key}' is not a list of values", where=file)
    output = Path(str(raw.get("output") or Path("runs") / file.stem)).resolve()
    jobs = [
        make_job(base, dict(zip(grid, values, strict=True)), output) for values in itertools.product(*grid.values())
    ]
    if len({job.name for job in jobs}) < len(jobs):
        raise MsekitError("two runs of the grid are the same", where=file)
    for job in jobs:
        if job.started_as() not in (None, job.arguments):
            raise MsekitError("a run of this name was made with other settings", where=job.folder, fix="Change output.")
    return output, jobs


def make_job(base: dict[str, Any], varied: dict[str, Any], output: Path) -> Job:
    """One combination, its settings checked as `msekit train` would."""
    settings = base | varied
    name = ",".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in varied.items())
    request = request_of(settings, output / name)
    (config,), _ = plan_runs(request)
    options = {key: str(settings[key]) for key in OPTIONS if settings.get(key) is not None}
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    seed = settings.get("seed", DEFAULT_SEED)
    arguments += ["--seeds", str(seed), "--output", str(output / name)]
    arguments += [part for override in request.overrides for part in ("--set", override)]
    return Job(name, varied, output / name, arguments, seed, config)


def request_of(settings: dict[str, Any], folder: Path) -> RunRequest:
    """A run by its settings, dotted keys and options alike."""
    options = {key: str(settings[key]) for key in OPTIONS if settings.get(key) is not None}
    source = options.get("source")
    return RunRequest(
        backbone=options.get("backbone"),
        dataset=options.get("dataset"),
        source=Path(source).resolve() if source else None,
        recipe=options.get("recipe"),
        run_file=options.get("config"),
        seeds=parse_seeds(str(settings.get("seed", DEFAULT_SEED))),
        output=folder,
        overrides=tuple(
            f"{key}={json.dumps(value)}" for key, value in settings.items() if key not in (*OPTIONS, "seed")
        ),
    )


def _short(value: Any) -> str:
    return re.sub(r"[^\w.+-]+", "-", Path(str(value)).stem if "/" in str(value) else str(value)).strip("-")


def slurm_array(file: Path, jobs: list[Job], output: Path) -> str:
    """A SLURM script that runs the grid as an array: a run per task, on one GPU; a preempted task is requeued."""
    return f"""#!/usr/bin/env bash
# The {len(jobs)} runs of {file.name}, one array task each. Afterwards `msekit sweep {file}` shows the summary.
#SBATCH --job-name={file.stem}
#SBATCH --array=0-{len(jobs) - 1}
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={output}/slurm-%A-%a.log
srun msekit sweep {shlex.quote(str(file.resolve()))} --only "$SLURM_ARRAY_TASK_ID"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
