"""`msekit sweep GRID.yaml`: independent runs of a grid of settings, over the devices that are here; or a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msekit.cli.output import Format, answer


def sweep_command(
    grid: Annotated[Path, typer.Argument(help="YAML with `output:`, `base:` and `grid:` (a list each) or `search:`.")],
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time [one per GPU; one where there is none].")
    ] = None,
    only: Annotated[int | None, typer.Option(min=0, help="Run the grid's Nth run alone (array jobs).")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write a SLURM array script to stdout and stop.")] = False,
    dry_run: Annotated[bool, typer.Option(help="List the runs and stop.")] = False,
    fmt: Format = "table",
) -> None:
    """Train every combination of a grid, or search among settings; finished runs are reused, failed ones retried once
    and kept."""
    from msekit.errors import MsekitError
    from msekit.experiments.grid import read_grid, slurm_array
    from msekit.experiments.search import is_search
    from msekit.experiments.sweep import run_sweep
    from msekit.experiments.sweep_table import Display, job_table, show_summary
    from msekit.reporter import Reporter
    from msekit.runs.look_first import look_at_what_it_needs

    if is_search(grid):
        if slurm or dry_run or only is not None or processes is not None:
            raise MsekitError("a search runs its trials one after the other, with no other option than --format")
        _search(grid, fmt)
        return
    output, jobs = read_grid(grid)
    if slurm:
        typer.echo(slurm_array(grid, jobs, output), nl=False)
        return
    if only is not None:
        if only >= len(jobs):
            raise MsekitError(f"--only {only}: the grid has {len(jobs)} runs, counted from 0", where=grid)
        jobs = [jobs[only]]
    reporter = Reporter()
    if dry_run:
        listed = [{"name": job.name, "arguments": job.arguments, "folder": str(job.run)} for job in jobs]
        answer(fmt, listed, lambda: reporter.show(job_table(jobs)))
        return
    for config in (job.config for job in jobs if job.config is not None):  # before libraries load
        look_at_what_it_needs(config)
    with Display() as display:
        outcome = run_sweep(output if only is None else None, jobs, processes, display.show)
    answer(fmt, outcome, lambda: show_summary(outcome, output, reporter))
    if any(run["state"] != "finished" for run in outcome["runs"]):
        raise typer.Exit(1)


def _search(file: Path, fmt: Format) -> None:
    from msekit.evaluation.units import show
    from msekit.experiments.search import read_search, run_search
    from msekit.reporter import Reporter, table_of

    reporter, search = Reporter(), read_search(file)
    outcome = run_search(search, reporter)
    key, best = outcome["key_metric"], outcome["best"]

    def tables() -> None:
        rows = [
            [str(t["number"]), t["state"], *(str(t["settings"][name]) for name in search.settings),
             "" if t["valid"] is None else show(key, t["valid"])]
            for t in outcome["trials"]
        ]  # fmt: skip
        reporter.show(table_of(("trial", "state", *search.settings, f"validation {key}"), rows, "search"))
        tested = ", ".join(f"{n} {show(n, v)}" for n, v in best["test"].items() if not isinstance(v, dict))
        reporter.show(f"best: trial {best['number']}, {best['folder']}; test: {tested}")

    answer(fmt, outcome, tables)
