"""`msekit backbone`: what backbones there are, what one is, fetch it, convert it for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Backbones: list, info, fetch, convert.", no_args_is_help=True, rich_markup_mode=None)

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="json goes to stdout.")]
Name = Annotated[str, typer.Argument(help="Catalogue name, folder or hub id.")]


@app.command("list")
def list_command(fmt: Format = "table") -> None:
    """List the catalogue: size, licence, and what is on this machine already."""
    from msekit.backbones.catalogue import BACKBONES
    from msekit.backbones.checkpoints.describe import describe_entry

    entries = [describe_entry(entry) for entry in BACKBONES.values()]
    if fmt == "json":
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("name", "parameters", "weights", "licence", "hub", "cached")
    for entry in entries:
        figures = f"{entry['parameters'] / 1e6:,.1f} M", decimal(entry["checkpoint_bytes"])
        cached = "yes" if entry["folder"] else "no"
        table.add_row(entry["name"], *figures, entry["licence"], entry["hub"] or "", cached)
    Console(stderr=True).print(table)


@app.command("info")
def info_command(name: Name, fmt: Format = "table") -> None:
    """Show a backbone's architecture, licence and place; a folder's or cached model's own figures are counted."""
    from msekit.backbones.checkpoints.describe import describe

    found = describe(name)
    if fmt == "json":
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)


@app.command("fetch")
def fetch_command(name: Name) -> None:
    """Download a backbone (or build it); run again after an interruption, it goes on where it stopped."""
    from msekit.backbones.load import checkpoint_folder
    from msekit.reporter import Reporter

    try:
        folder = checkpoint_folder(name)
    except KeyboardInterrupt:
        Reporter().note("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    Reporter().note(f"{name} is complete: {folder}")


@app.command("convert")
def convert_command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Catalogue name, folder or hub id.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.")],
) -> None:
    """Convert a Qwen-1 or ChatGLM3 checkpoint to one that other tools load without its own code."""
    from rich.filesize import decimal

    from msekit.backbones.checkpoints.convert import convert
    from msekit.backbones.load import checkpoint_folder
    from msekit.reporter import Reporter

    reporter = Reporter()
    done = convert(checkpoint_folder(source), target, reporter)
    reporter.note(f"{done.architecture}, {done.parameters:,} parameters, {decimal(done.size)}: {done.folder}")


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for key, value in found.items():
        if value is not None:
            table.add_row(key, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
    Console(stderr=True).print(table)
