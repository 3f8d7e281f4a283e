"""`msekit config`: what a run's settings come to, what settings there are, and what one of them means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from msekit.cli import options
from msekit.settings.plan_runs import RunRequest, plan_runs

app = typer.Typer(help="Settings: show, schema, explain.", no_args_is_help=True, rich_markup_mode=None)


@app.command("show")
def show_command(
    backbone: Annotated[str | None, typer.Option(help="As for train.")] = None,
    dataset: Annotated[str | None, typer.Option(help="As for train.")] = None,
    source: Annotated[Path | None, typer.Option(help="As for train.")] = None,
    config: options.RunFile = None,
    recipe: options.Recipe = None,
    profile: options.Profile = None,
    adapter: options.Adapter = None,
    ablate: options.Ablate = None,
    overrides: options.Overrides = None,
) -> None:
    """Print the resolved settings of a run as YAML: a run file that gives the same run."""
    from msekit.settings.resolve import dump

    request = RunRequest(
        backbone=backbone,
        dataset=dataset,
        source=source.resolve() if source else None,
        recipe=recipe,
        profile=profile,
        adapter=adapter,
        ablate=ablate,
        run_file=config,
        overrides=tuple(overrides or ()),
    )
    typer.echo(dump(plan_runs(request)[0][0]), nl=False)


@app.command("schema")
def schema_command(
    fmt: Annotated[Literal["json", "markdown"], typer.Option("--format", help="For editors, or for people.")] = "json",
) -> None:
    """Print the JSON schema of run files, for completion in editors; or all settings in tables."""
    from msekit.settings.schema import json_schema, reference

    typer.echo(json.dumps(json_schema(), ensure_ascii=False, indent=1) if fmt == "json" else reference().rstrip())


@app.command("explain")
def explain_command(
    key: Annotated[str, typer.Argument(help="A setting or a section: optim.lr, loss.", autocompletion=options.keys)],
) -> None:
    """Say what a setting is, what values it takes, and its default before recipe and profile."""
    from msekit.settings.schema import explain

    for setting in explain(key):
        typer.echo(f"{setting.key}: {setting.kind} [{setting.default}]")
        if setting.doc:
            typer.echo(f"    {setting.doc}")
