"""The `msekit` command. Each subcommand parses, resolves a config and makes one call; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from msekit.cli import (
    backbone,
    baseline,
    compare,
    count_params,
    data,
    doctor,
    evaluate,
    extract,
    plan,
    predict,
    report,
    reproduce,
    sensitivity,
    serve,
    share,
    sweep,
    train,
    verify_backbone,
)
from msekit.cli.commands import Commands
from msekit.cli.entry import run
from msekit.version import __version__

__all__ = ["app", "run"]

app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train the MSE-Adapter: a small plug-in that lets a frozen large language model hear and see.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("report")(report.report)
app.command("verify-backbone")(verify_backbone.verify_backbone_command)
app.command("plan")(plan.plan_command)
app.command("extract")(extract.extract_command)
app.command("predict")(predict.predict_command)
app.command("serve")(serve.serve_command)
app.command("export")(share.export_command)
app.command("push")(share.push_command)
app.command("import-adapter")(share.import_command)
app.command("average")(share.average_command)
app.command("baseline")(baseline.baseline_command)
app.command("compare")(compare.compare_command)
app.command("reproduce")(reproduce.reproduce)
app.command("sensitivity")(sensitivity.sensitivity_command)
app.command("count-params")(count_params.count_params)
app.command("sweep")(sweep.sweep_command)
app.command("doctor")(doctor.doctor_command)
app.add_typer(data.app, name="data")
app.add_typer(backbone.app, name="backbone")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msekit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = None,
) -> None:
    """Options of every command."""
