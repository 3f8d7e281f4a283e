"""`msekit plan`: memory and steps of a run before anything is loaded, and whether the machine holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli import options

if TYPE_CHECKING:
    from msekit.planning.plan_run import Plan


def plan_command(
    backbone: Annotated[str | None, typer.Option(help="Catalogue name, folder, or a hub id in the cache.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Catalogue name, or a YAML describing your own.")] = None,
    quantization: Annotated[str | None, typer.Option(help="none, int8 or nf4 [the profile's].")] = None,
    profile: options.Profile = None,
    batch: Annotated[int | None, typer.Option(help="Samples of a batch [the pair's].")] = None,
    layout: options.Layout = None,
    parallel_seeds: Annotated[int, typer.Option(min=1, help="Seeds at once, as train --parallel-seeds does.")] = 1,
    recipe: options.Recipe = None,
    config: Annotated[str | None, typer.Option(help="A run file, or the name of a shipped one.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Any setting: optim.epochs=5.")] = None,
    fmt: Annotated[Literal["table", "json"], typer.Option("--format", help="json goes to stdout.")] = "table",
) -> None:
    """Memory by part and expected steps, from configurations alone; what to change where it does not fit."""
    from msekit.planning.plan_run import plan_run
    from msekit.settings.plan_runs import plan_runs

    given: dict[str, Any] = {
        "backbone": backbone,
        "dataset": dataset,
        "source": None,
        "recipe": recipe,
        "layout": layout,
        "profile": profile,
        "output": Path("runs"),
        "model": {"quantization": quantization},
        "optim": {"batch_size": batch},
    }
    runs, _ = plan_runs(given, config, None, overrides or [])
    plan = plan_run(runs[0], parallel_seeds)
    if fmt == "json":
        typer.echo(json.dumps(plan.as_json(), indent=1, ensure_ascii=False))
    else:
        _show(plan, parallel_seeds)


def _show(plan: Plan, seeds: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from msekit.settings.profiles import GIB

    console = Console(stderr=True, highlight=False)
    answer = plan.as_json()
    table = Table("part", "GiB", title=f"{answer['backbone']} on {answer['dataset']}, {answer['profile']}")
    unused = "activations" if plan.checkpointing else "activations_recomputed"
    for name, size in answer["memory"].items():
        style = "dim" if name == unused else None
        table.add_row(name.replace("_", " "), f"{size / GIB:.2f}", style=style)
    table.add_section()
    table.add_row(f"largest, checkpointing {answer['checkpointing']}", f"{plan.total / GIB:.2f}")
    table.add_row("the machine has", f"{plan.profile.memory_bytes / GIB:.2f}")
    console.print(table)
    parts = f" in {answer['accumulation']} parts" if answer["accumulation"] > 1 else ""
    parts += f" of {seeds} seeds at once" if seeds > 1 else ""
    steps = "unknown" if answer["steps"] is None else f"{answer['steps']:,} ({answer['steps_per_epoch']:,} an epoch)"
    console.print(
        f"{answer['dtype']}, quantization {answer['quantization']}; batches of {answer['batch_size']}{parts}, "
        f"up to {answer['sequence_tokens']} tokens, evaluation in batches of {answer['evaluation_batch_size']}; "
        f"steps: {steps}"
    )
    verdict = "It fits." if plan.fits else f"It does not fit. Change: {' '.join(plan.advice)}"
    console.print(verdict, style="green" if plan.fits else "red")
    for note in plan.notes:
        console.print(f"({note})", style="dim")
