"""`msekit backbone`: what backbones there are, what one is, fetch it, convert it for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msekit.cli.output import Format, answer, table_of_facts

app = typer.Typer(help="Backbones: list, info, fetch, convert.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="Catalogue name, folder or hub id.")]


@app.command("list")
def list_command(fmt: Format = "table") -> None:
    """List the catalogue: size, licence, and what is on this machine already."""
    from msekit.backbones.catalogue import BACKBONES
    from msekit.backbones.checkpoints.describe import describe_entry
    from msekit.reporter import Reporter, table_of

    entries = [describe_entry(entry) for entry in BACKBONES.values()]

    def show() -> None:
        from rich.filesize import decimal

        rows = [
            (
                entry["name"],
                f"{entry['parameters'] / 1e6:,.1f} M",
                decimal(entry["checkpoint_bytes"]),
                entry["licence"] + (", gated" if entry["gated"] else ""),
                entry["hub"] or "",
                "yes" if entry["folder"] else "no",
            )
            for entry in entries
        ]
        Reporter().show(table_of(("name", "parameters", "weights", "licence", "hub", "cached"), rows))

    answer(fmt, entries, show)


@app.command("info")
def info_command(name: Name, fmt: Format = "table") -> None:
    """Show a backbone's architecture, licence and place; a folder's or cached model's own figures are counted."""
    from msekit.backbones.checkpoints.describe import describe
    from msekit.reporter import Reporter

    facts = describe(name)
    answer(fmt, facts, lambda: Reporter().show(table_of_facts(facts)))


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
