"""Independent runs of a grid: one queue over the devices of this machine, resumable, failures kept."""

from __future__ import annotations

import json
import os
import queue
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
from msekit.errors import StoppedError
from msekit.experiments.grid import ARGUMENTS, Job
from msekit.runs.files import SUMMARY, write_json

ATTEMPTS = 2
Outcome = dict[str, Any]
"""`runs`: every run's outcome; `means`: over the seeds of every other combination of settings."""


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
