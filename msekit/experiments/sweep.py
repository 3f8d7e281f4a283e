"""Independent runs of a grid of settings: one queue over the devices of this machine, resumable, failures kept.

A grid file has what all runs share and what varies; every combination is one `msekit train`:

    output: runs/rates
    base: {backbone: smollm2-135m, dataset: meld6.yaml, optim.epochs: 5}
    grid: {seed: [1, 2, 3], optim.lr: [1e-3, 2e-3]}
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msekit.distributed.processes import STOPPING
from msekit.errors import MsekitError, StoppedError, nearest
from msekit.json_file import read_json
from msekit.runs.files import SUMMARY, write_json
from msekit.runs.history import read_history
from msekit.runs.report import read_report
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import DEFAULT_SEED, RunRequest, parse_seeds, plan_runs
from msekit.yaml_file import read_mapping

OPTIONS = ("backbone", "dataset", "source", "recipe", "config")
"""Settings that `msekit train` has options for; any other is a `--set`."""
KEYS = ("output", "base", "grid")
ATTEMPTS = 2
ARGUMENTS = "arguments.json"
Outcome = dict[str, Any]
"""`runs`: every run's outcome; `means`: over the seeds of every other combination of settings."""


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


def devices(processes: int | None) -> list[dict[str, str]]:
    """The environment of every slot that a run can take: one per GPU, else equal parts of the CPU.

    Args:
        processes: Runs at a time; None for one per GPU, or one where there is none.
    """
    import torch

    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    slots = processes or max(gpus, 1)
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": str(slot % gpus)} for slot in range(slots)]
    return [{"OMP_NUM_THREADS": str(max(cores // slots, 1))} for _ in range(slots)]


@dataclass
class Sweep:
    """Jobs being run by one worker thread per device."""

    jobs: list[Job]
    slots: list[dict[str, str]]
    waiting: queue.SimpleQueue[Job] = field(default_factory=queue.SimpleQueue)
    children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopping: bool = False

    def start(self) -> list[threading.Thread]:
        """Reuse what is finished, queue the rest, start the workers."""
        for job in self.jobs:
            if job.report() is not None:
                job.state = "finished"
            else:
                self.waiting.put(job)
        threads = [threading.Thread(target=self.work, args=slot, daemon=True) for slot in enumerate(self.slots)]
        for thread in threads:
            thread.start()
        return threads

    def work(self, number: int, environment: dict[str, str]) -> None:
        """Take runs from the queue until it is empty; a failed one goes to its end once more."""
        while not self.stopping:
            try:
                job = self.waiting.get_nowait()
            except queue.Empty:
                return
            gpu = environment.get("CUDA_VISIBLE_DEVICES")
            job.device = f"CPU part {number + 1}" if gpu is None else f"GPU {gpu}"
            self.run(job, environment)
            if job.state == "failed" and job.attempts < ATTEMPTS:
                job.state = "waiting"
                self.waiting.put(job)

    def run(self, job: Job, environment: dict[str, str]) -> None:
        """One attempt; it continues where an earlier one stopped."""
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.folder / ARGUMENTS, job.arguments)
        job.state, job.attempts = "running", job.attempts + 1
        started = time.monotonic()
        with (job.folder / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", "msekit", "train", *job.arguments, "--resume"]
            child = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
            self.children.add(child)
            if self.stopping:
                child.terminate()
            code = child.wait()
            self.children.discard(child)
        job.seconds += time.monotonic() - started
        job.state = "finished" if code == 0 else "stopped" if self.stopping else "failed"
        lines = (job.folder / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        job.problem = "" if code == 0 else next((line for line in reversed(lines) if line.strip()), f"exit code {code}")

    def stop(self, *_: object) -> None:
        """Let running ones save and end; start no others."""
        self.stopping = True
        for child in list(self.children):
            child.terminate()


@contextmanager
def stopping_on_signals(sweep: Sweep) -> Iterator[None]:
    """Within, Ctrl-C and a scheduler's signals stop the sweep in good order."""
    numbers = (signal.SIGINT, *STOPPING)
    before = {number: signal.signal(number, sweep.stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_sweep(
    output: Path | None, jobs: list[Job], processes: int | None, show: Callable[[list[Job]], None]
) -> Outcome:
    """Run what is not finished yet and summarise.

    Args:
        output: The sweep's folder, where `summary.json` is written; None for a part of a grid.
        jobs: Its runs.
        processes: See `devices`.
        show: Called about once a second with the jobs, to draw them.

    Returns:
        The summary.

    Raises:
        StoppedError: A signal stopped it.
    """
    sweep = Sweep(jobs, devices(processes))
    with stopping_on_signals(sweep):
        threads = sweep.start()
        while any(thread.is_alive() for thread in threads):
            show(jobs)
            time.sleep(0.5)
    show(jobs)
    outcome = summarise(jobs)
    if output is not None:
        write_json(output / SUMMARY, outcome)
    if sweep.stopping:
        raise StoppedError("the sweep was stopped", where=output, fix="Give the same command again to go on.")
    return outcome


def summarise(jobs: list[Job]) -> Outcome:
    """Every run's outcome, and mean ± deviation over seeds for every other combination of settings."""
    runs: list[dict[str, Any]] = []
    groups: dict[str, list[dict[str, float]]] = {}
    for job in jobs:
        report = job.report()
        metrics = {name: value for name, value in (report or {}).get("metrics", {}).items() if _is_number(value)}
        runs.append(
            {"name": job.name, "settings": job.settings | {"seed": job.seed}, "state": job.state, "metrics": metrics}
            | {"attempts": job.attempts, "problem": job.problem, "folder": str(job.run)}
        )
        if report is not None:
            others = {key: value for key, value in job.settings.items() if key != "seed"}
            groups.setdefault(json.dumps(others), []).append(metrics)
    means = [
        {"settings": json.loads(others), "seeds": len(seeds), "metrics": _over_seeds(seeds)}
        for others, seeds in groups.items()
    ]
    return {"runs": runs, "means": means}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _over_seeds(seeds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    shared = [name for name in seeds[0] if all(name in metrics for metrics in seeds)]
    values = {name: [metrics[name] for metrics in seeds] for name in shared}
    return {
        name: {"mean": statistics.fmean(numbers), "std": statistics.stdev(numbers) if len(numbers) > 1 else 0.0}
        for name, numbers in values.items()
    }


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
