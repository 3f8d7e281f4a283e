"""The `msekit` command. Each subcommand parses, resolves a config and makes one call; nothing here imports torch."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

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
from msekit.distributed.processes import hand_over
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.version import __version__

app = typer.Typer(
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


def run() -> None:
    """Entry point: exit code 0 on success, 2 for a user's mistake, 75 after a signal, 1 for a failure of ours."""
    debug = "--debug" in sys.argv
    if debug:  # accepted anywhere on the line
        sys.argv.remove("--debug")
    # torch's own choice for what it compiles is a folder of a known name under /tmp, where others may have left code
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logging.getLogger("msekit").addHandler(handler)
    try:
        app()
    except MsekitError as error:
        if debug:
            raise
        if not hand_over(str(error)):
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(error.exit_code)
