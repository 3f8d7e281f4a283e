"""What a user sees of a sweep: a table that follows the runs, on stderr, and the summary at the end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from msekit.evaluation.units import show
from msekit.experiments.grid import Job
from msekit.experiments.sweep import Outcome
from msekit.reporter import Reporter, seen, table_of

_COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow"}


class Display:
    """A live table on a terminal; elsewhere a line for every change."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False)
        self.last_states: dict[str, str] = {}

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def show(self, jobs: list[Job]) -> None:
        """Draw the jobs as they are."""
        if self.console.is_terminal:
            self.live.update(job_table(jobs), refresh=True)
            return
        for job in jobs:
            if self.last_states.get(job.name) != job.state:
                self.last_states[job.name] = job.state
                problem = f": {job.problem}" if job.state == "failed" else ""
                self.console.print(seen(f"{job.state:<9} {job.name}{problem}"), soft_wrap=True)


def show_summary(outcome: Outcome, output: Path, reporter: Reporter) -> None:
    """Show the means over seeds; say what failed, and where everything is."""
    names = list(dict.fromkeys(name for group in outcome["means"] for name in group["metrics"]))
    rows = []
    for group in outcome["means"]:
        settings = ", ".join(f"{key}={value}" for key, value in group["settings"].items()) or "all"
        cells = ((name, group["metrics"].get(name)) for name in names)
        shown = (show(name, cell["mean"], spread=cell["std"]) if cell else "" for name, cell in cells)
        rows.append((settings, str(group["seeds"]), *shown))
    headings = ("settings", "seeds", *names)
    reporter.show(table_of(headings, rows, "test, mean ± std over seeds", numbers_from=1))
    for run in outcome["runs"]:
        if run["state"] == "failed":
            reporter.warn(f"{run['name']} failed: {run['problem']}")
    reporter.note(f"runs, their logs and summary.json: {output}")


def job_table(jobs: list[Job]) -> Table:
    """One row per run."""
    table = Table("run", "state", "device", "latest", "minutes")
    for job in jobs:
        colour = _COLOURS.get(job.state)
        state = f"[{colour}]{job.state}[/{colour}]" if colour else job.state
        latest = job.problem if job.state == "failed" else job.latest()
        table.add_row(seen(job.name), state, job.device, seen(latest), f"{job.seconds / 60:.1f}")
    return table
