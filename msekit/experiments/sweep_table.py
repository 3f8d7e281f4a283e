"""What a user sees of a sweep: a table that follows the runs, and the summary at the end; on stderr."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from msekit.experiments.sweep import Found, Job

_COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow"}


class Display:
    """A live table on a terminal; elsewhere a line for every change."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False)
        self.told: dict[str, str] = {}

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
            if self.told.get(job.name) != job.state:
                self.told[job.name] = job.state
                problem = f": {job.problem}" if job.state == "failed" else ""
                self.console.print(escape(f"{job.state:<9} {job.name}{problem}"), soft_wrap=True)

    def summary(self, found: Found, output: Path) -> None:
        """The means over seeds, what failed, and where everything is."""
        names = list(dict.fromkeys(name for group in found["means"] for name in group["metrics"]))
        table = Table("settings", "seeds", *names, title="test, mean ± std over seeds")
        for group in found["means"]:
            settings = ", ".join(f"{key}={value}" for key, value in group["settings"].items()) or "all"
            cells = (group["metrics"].get(name) for name in names)
            table.add_row(
                escape(settings),
                str(group["seeds"]),
                *(f"{cell['mean']:.4f} ± {cell['std']:.4f}" if cell else "" for cell in cells),
            )
        self.console.print(table)
        for run in found["runs"]:
            if run["state"] == "failed":
                self.console.print(
                    f"[red]failed:[/red] {escape(run['name'])}: {escape(run['problem'])}", soft_wrap=True
                )
        self.console.print(escape(f"runs, their logs and summary.json: {output}"), soft_wrap=True)


def job_table(jobs: list[Job]) -> Table:
    """One row per run."""
    table = Table("run", "state", "device", "latest", "minutes")
    for job in jobs:
        colour = _COLOURS.get(job.state)
        state = f"[{colour}]{job.state}[/{colour}]" if colour else job.state
        latest = job.problem if job.state == "failed" else job.latest()
        table.add_row(escape(job.name), state, job.device, escape(latest), f"{job.seconds / 60:.1f}")
    return table
