"""`msekit train`: from a backbone and a data set to a tested plug-in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msekit.cli import options
from msekit.distributed.processes import already_launched, is_main_process
from msekit.settings.plan_runs import RunRequest, parse_seeds, plan_runs

if TYPE_CHECKING:
    from msekit.settings.config import RunConfig


def train_command(
    backbone: Annotated[str | None, typer.Option(help="Catalogue name, folder or hub id of a causal LM.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Catalogue name, or a YAML describing your own.")] = None,
    source: Annotated[Path | None, typer.Option(help="Folder or file of the features.")] = None,
    labels: options.Labels = None,
    span: options.Range = None,
    language: options.Language = None,
    prompt: options.Prompt = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    columns: options.Columns = None,
    validation: options.Validation = None,
    config: options.RunFile = None,
    recipe: options.Recipe = None,
    profile: options.Profile = None,
    quantization: options.Quantization = None,
    layout: options.Layout = None,
    adapter: options.Adapter = None,
    ablate: options.Ablate = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, comma-separated.")] = None,
    folds: options.Folds = None,
    parallel_seeds: Annotated[bool, typer.Option(help="Train all seeds at once on one backbone.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the schedule.")] = None,
    limit_train: Annotated[int | None, typer.Option(help="Train on this many samples.")] = None,
    on_missing: options.OnMissing = None,
    context: options.Context = None,
    track: options.Track = None,
    deterministic: Annotated[bool, typer.Option(help="On a GPU: the same numbers every time; slower.")] = False,
    output: Annotated[Path | None, typer.Option(help="Output folder [runs/<dataset>-<backbone>].")] = None,
    overrides: options.Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Show the resolved run and one sample as the model sees it.")] = False,
    resume: Annotated[
        bool,
        typer.Option(help="Continue unfinished runs, and finished ones that are given more epochs; others are reused."),
    ] = False,
    launch: options.Launch = None,
    num_processes: options.NumProcesses = None,
    num_machines: options.NumMachines = 1,
    machine_rank: options.MachineRank = 0,
    main_address: options.MainAddress = None,
) -> None:
    """Train the plug-in on a frozen backbone, test its best epoch, write a run folder per seed."""
    request = RunRequest(
        backbone=backbone, dataset=dataset, source=source.resolve() if source else None,
        own_set=options.own_set(labels, span, language, prompt, encoding, delimiter, columns, validation),
        recipe=recipe, profile=profile, layout=layout, quantization=quantization, adapter=adapter, ablate=ablate,
        epochs=epochs, limit_train=limit_train, on_missing=on_missing, context=context, track=options.names(track),
        deterministic=deterministic or None, output=output, run_file=config,
        seeds=parse_seeds(seeds) if seeds else None, test_folds=folds, overrides=tuple(overrides or ()),
    )  # fmt: skip
    runs, folder = _planned(request)
    if not (_shown(runs[0], dry_run) or _launched(launch, num_processes, num_machines, machine_rank, main_address)):
        (train_folds if folds else train_all)(runs, folder, resume, parallel_seeds)


def _planned(request: RunRequest) -> tuple[list[RunConfig], Path]:
    """The runs and their folder; a word where the paper's own setting is taken because nothing else was asked for."""
    runs, folder = plan_runs(request)
    if runs[0].recipe == "paper" and request.recipe is None and request.run_file is None and is_main_process():
        typer.echo(
            "recipe paper: the paper's exact setting of this pair; what measures best is --recipe best", err=True
        )
    return runs, folder


def _shown(run: RunConfig, wanted: bool) -> bool:
    """Show a run instead of training it, where that is asked for; whether it was."""
    if wanted:
        from msekit.training.dry_run import show_run

        show_run(run)
    return wanted


def _launched(name: str | None, processes: int | None, machines: int, rank: int, address: str | None) -> bool:
    """Run this very command in several processes, where that is asked for; whether it was."""
    if name is None or already_launched():
        return False
    from msekit.distributed.launch import Where, launch

    launch(name, Where(processes, machines, rank, address), sys.argv[1:])
    return True


def train_folds(runs: list[RunConfig], folder: Path, resume: bool, together: bool) -> None:
    """Train the seeds of every fold, and put the folds together."""
    from msekit.experiments.folds import by_fold, fold_run, show_folds, summarise_folds
    from msekit.reporter import Reporter
    from msekit.runs.look_first import look_first

    for run in runs:
        look_first(run, resume)
    for place, seeds in by_fold(runs).items():
        train_all(seeds, place, resume, together, looked=True)
    if is_main_process():
        show_folds(summarise_folds(folder, list(map(fold_run, runs))), folder, Reporter())


def train_all(runs: list[RunConfig], folder: Path, resume: bool, together: bool, looked: bool = False) -> None:
    """Train every run, one after the other or together, and summarise what finished."""
    from msekit.reporter import Reporter
    from msekit.reports.summary import show_summary, write_summary
    from msekit.runs.finished import finished_report
    from msekit.runs.go_on import is_reused
    from msekit.runs.look_first import look_first

    reporter = Reporter(quiet=not is_main_process())
    first = runs[0]
    reporter.note(f"{first.backbone} on {Path(first.dataset).stem}, recipe {first.recipe}, output {folder}")
    for run in () if looked else runs:  # before the first one spends hours
        look_first(run, resume)
    reports = []
    try:
        if all(is_reused(run, resume) for run in runs):  # torch need not be loaded
            reports = [finished_report(run, reporter) for run in runs]
        elif together:
            from msekit.training.parallel_seeds import train_together

            for report in train_together(runs, resume, reporter):
                reports.append(report)
        else:
            from msekit.training.loop import train

            for run in runs:
                reports.append(train(run, resume, reporter))
    except KeyboardInterrupt:
        reporter.note("stopped; continue with the same command and --resume")
        raise typer.Exit(130) from None
    finally:
        if reports and is_main_process():
            write_summary(folder, reports)
    if is_main_process():
        show_summary(folder, reports, reporter)
