"""`msekit export`, `push`, `import-adapter` and `average`: plug-ins on their way from one user to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.cli.output import Format, answer
from msekit.errors import MsekitError

if TYPE_CHECKING:
    from msekit.reporter import Reporter


def export_command(
    run: Annotated[Path, typer.Argument(help="A seed's folder, or a folder that holds one seed.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", help="Your terms for the plug-in: an SPDX name (cc-by-4.0), or words."),
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option("--data-licence", "--data-license", help="The terms of the training data.")
    ] = None,
) -> None:
    """Write a run's plug-in with a model card into a folder that can be shared."""
    from msekit.reporter import Reporter
    from msekit.runs.folder import find_run

    run = find_run(run)  # before libraries load
    from msekit.sharing.export import export_run

    shared = export_run(run, folder, licence=licence, data_licence=data_licence)
    Reporter().note(f"{shared.dataset.name} on {shared.backbone.name} → {folder}; share it with `msekit push`")


def push_command(
    folder: Annotated[Path, typer.Argument(help="What `msekit export` wrote.")],
    repo: Annotated[str, typer.Argument(help="Hub repository user/name; made if it does not exist.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone see it [private].")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Upload an exported plug-in to the hub, as a private repository. Log in first: `hf auth login`."""
    from msekit.reporter import Reporter
    from msekit.sharing.push import push_folder

    typer.echo(push_folder(folder, repo, public=public, message=message))
    Reporter().note(f"uploaded {folder} to {repo}{'' if public else ', private'}")


def import_command(
    file: Annotated[Path, typer.Argument(help="A checkpoint that the authors' program saved.")],
    backbone: Annotated[str, typer.Option(help="What it was trained on.")],
    dataset: Annotated[str, typer.Option(help="Catalogue name, or a YAML describing your own.")],
    output: Annotated[Path, typer.Option(help="The run folder to write.")],
) -> None:
    """Turn a checkpoint of the authors' program into a run folder. Nothing in it is executed."""
    from msekit.data.catalogue import resolve_dataset
    from msekit.reporter import Reporter
    from msekit.runs.folder import refuse_occupied
    from msekit.runs.look_first import look_at_backbone

    if not file.is_file():  # before libraries load
        raise MsekitError("no such file", where=file)
    resolve_dataset(dataset)
    look_at_backbone(backbone)
    refuse_occupied(output, resume=False)
    from msekit.sharing.import_authors import import_checkpoint

    folder = import_checkpoint(file, backbone, dataset, output.resolve())
    Reporter().note(
        f"run folder: {folder}. The weights are the authors'; tags and prompt are msekit's, so measure it: "
        "msekit evaluate"
    )


def average_command(
    runs: Annotated[list[Path], typer.Argument(help="Seeds' folders, or one that holds seed-*/ folders.")],
    output: Annotated[Path | None, typer.Option(help="Write the averaged run here [compare only].")] = None,
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="What to compare on.")] = "test",
    source: Annotated[Path | None, typer.Option(help="Features elsewhere than where the runs found them.")] = None,
    fmt: Format = "table",
) -> None:
    """Average the weights of seeds; show it beside the best seed and beside an ensemble of their scores."""
    from msekit.reporter import Reporter
    from msekit.runs.folder import find_runs, refuse_occupied
    from msekit.runs.moved_data import look_at_data_of

    for run in runs:  # before libraries load
        look_at_data_of(find_runs(run)[0][0], source)
    if output is not None:
        refuse_occupied(output, resume=False)
    from msekit.studies.merge_seeds import average_runs

    reporter = Reporter()
    result = average_runs(runs, output and output.resolve(), split=split, source=source, reporter=reporter)
    answer(fmt, result, lambda: _show(result, reporter))
    if fmt == "table" and output is not None:
        reporter.note(f"run folder: {output}")


def _show(result: Mapping[str, Any], reporter: Reporter) -> None:
    """Each seed, the best one, the average and the ensemble side by side."""
    from msekit.evaluation.units import show
    from msekit.reporter import table_of

    names = {run["run"]: f"{Path(run['run']).parent.name}/{Path(run['run']).name}" for run in result["runs"]}
    columns = {names[run["run"]]: run["metrics"] for run in result["runs"]}
    columns[f"best on valid: {names[result['best']['run']]}"] = result["best"]["metrics"]
    columns |= {"average of weights": result["average"], "ensemble of scores": result["ensemble"]}
    rows = [
        (metric, *(show(metric, metrics[metric]) for metrics in columns.values()))
        for metric, value in result["average"].items()
        if not isinstance(value, dict)
    ]
    title = f"{result['split']}, {result['samples']} samples"
    reporter.show(table_of(("metric", *columns), rows, title, numbers_from=1))
    if result["collapsed_to"] is not None:
        reporter.warn(f"the average answers '{result['collapsed_to']}' for every sample: do not use it")
