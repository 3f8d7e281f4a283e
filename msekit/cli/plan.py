"""`msekit plan`: memory and steps of a run before anything is loaded, and whether the machine holds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msekit.cli import options
from msekit.cli.output import Format, answer

if TYPE_CHECKING:
    from msekit.planning.plan_run import Plan


def plan_command(
    backbone: Annotated[str | None, typer.Option(help="Catalogue name, folder, or a hub id in the cache.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Catalogue name, or a YAML describing your own.")] = None,
    source: options.Source = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
    quantization: options.Quantization = None,
    profile: options.Profile = None,
    batch: Annotated[int | None, typer.Option(help="Samples of a batch [the pair's].")] = None,
    layout: options.Layout = None,
    parallel_seeds: Annotated[int, typer.Option(min=1, help="Seeds at once, as train --parallel-seeds does.")] = 1,
    recipe: options.Recipe = None,
    adapter: options.Adapter = None,
    ablate: options.Ablate = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the schedule.")] = None,
    context: options.Context = None,
    config: options.RunFile = None,
    overrides: options.Overrides = None,
    fmt: Format = "table",
) -> None:
    """Memory by part and expected steps, from configurations alone; what to change where it does not fit."""
    from msekit.planning.plan_run import plan_run
    from msekit.settings.plan_runs import RunRequest, plan_runs

    request = RunRequest(
        backbone=backbone,
        dataset=dataset,
        source=source.resolve() if source else None,
        own_set=options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation),
        adapter=adapter,
        ablate=ablate,
        epochs=epochs,
        context=context,
        recipe=recipe,
        profile=profile,
        layout=layout,
        quantization=quantization,
        batch_size=batch,
        output=Path("runs"),
        run_file=config,
        overrides=tuple(overrides or ()),
    )
    runs, _ = plan_runs(request)
    plan = plan_run(runs[0], parallel_seeds)
    figures = plan.as_json() | {"expected_seconds": None}
    lasts = _lasts(plan)
    if lasts is not None:
        figures["expected_seconds"] = round(lasts[0], 1)
    answer(fmt, figures, lambda: _show(plan, parallel_seeds, lasts))


def _lasts(plan: Plan) -> tuple[float, str] | None:
    """How long one seed takes, and what that is reckoned from; None where it cannot be known yet."""
    from msekit.backbones.shape import shape_of
    from msekit.planning.duration import expected_seconds

    config = plan.config
    if plan.steps_per_epoch is None:
        return None
    samples = plan.steps_per_epoch * config.optim.batch_size
    return expected_seconds(plan, shape_of(config.backbone).parameters, samples, config.optim.epochs)


def _show(plan: Plan, seeds: int, lasts: tuple[float, str] | None) -> None:
    from msekit.gpu import GIB
    from msekit.planning.duration import line_of
    from msekit.reporter import Reporter, table_of

    figures = plan.as_json()
    unused = "activations" if plan.checkpointing else "activations_recomputed"
    rows = [(name.replace("_", " "), size) for name, size in figures["memory"].items() if name != unused]
    rows.append((f"largest, checkpointing {figures['checkpointing']}", plan.total))
    rows.append(("the machine has", plan.profile.memory_bytes))
    title = f"{figures['backbone']} on {figures['dataset']}, {figures['profile']}"
    table = table_of(("part", "GiB"), [(name, f"{size / GIB:.2f}") for name, size in rows], title, numbers_from=1)
    table.rows[-3].end_section = True
    parts = f" in {figures['accumulation']} parts" if figures["accumulation"] > 1 else ""
    parts += f" of {seeds} seeds at once" if seeds > 1 else ""
    steps = "unknown" if figures["steps"] is None else f"{figures['steps']:,} ({figures['steps_per_epoch']:,} an epoch)"
    Reporter().show(
        table,
        f"{figures['dtype']}, quantization {figures['quantization']}; batches of {figures['batch_size']}{parts}, "
        f"up to {figures['sequence_tokens']} tokens behind {figures['prefix_tokens']} that are read once, "
        f"evaluation in batches of {figures['evaluation_batch_size']}; steps: {steps}",
        "how long it takes is not known before a first run here"
        if lasts is None
        else line_of(lasts[0], plan.config.optim.epochs, lasts[1]),
        "It fits." if plan.fits else f"It does not fit. Change: {' '.join(plan.advice)}",
        *(f"({note})" for note in plan.notes),
    )
