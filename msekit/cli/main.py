"""The `msekit` command. Each subcommand parses, resolves a config and makes one call; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from msekit.cli import (
    backbone,
    baseline,
    cache,
    compare,
    config,
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
    invoke_without_command=True,
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
app.add_typer(config.app, name="config")
app.add_typer(cache.app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msekit {__version__}")
        raise typer.Exit


WHAT_FOR = """\
msekit trains the MSE-Adapter: a small plug-in that lets a frozen large language model hear and see.

  see it work             msekit train --config quickstart
                          (30 seconds, on a made-up LLM: add --backbone tiny-llama --output runs/first)
  your own data           msekit data example moods          writes a small set to look at, and to replace by yours
                          msekit train --backbone smollm2-135m --dataset moods/moods.yaml
  your own videos         msekit extract CLIPS --table CLIPS/clips.csv --labels glad,sad --output FOLDER
  use what was trained    msekit predict RUN --text "So you are leaving tomorrow."
                          msekit report RUN; msekit serve RUN; msekit export RUN FOLDER

All commands: msekit --help.  What this machine can do: msekit doctor.  The paper's tables: msekit reproduce --help.
"""
"""What `msekit` alone says: the four things that people come for."""


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = None,
) -> None:
    """Options of every command."""
    if context.invoked_subcommand is None:
        typer.echo(WHAT_FOR, nl=False)
