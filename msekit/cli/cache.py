"""`msekit cache`: what msekit keeps on this machine, and removing it."""

from __future__ import annotations

from typing import Annotated

import typer

from msekit.cli.output import Format, answer

app = typer.Typer(help="The cache: list, clean, fetch.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_command(fmt: Format = "table") -> None:
    """List what is kept, with sizes; it can all be made or downloaded again."""
    from rich.filesize import decimal

    from msekit.cache_contents import KINDS, entries
    from msekit.paths import cache_root
    from msekit.reporter import Reporter, table_of

    found = entries()
    facts = [{"kind": e.kind, "name": e.name, "bytes": e.size, "days": e.days, "path": str(e.path)} for e in found]

    def show() -> None:
        rows = [(entry.kind, entry.name, decimal(entry.size), f"{entry.days} d") for entry in found]
        reporter.show(table_of(("kind", "name", "size", "age"), rows, f"cache {cache_root()}", numbers_from=2))
        for kind, what in KINDS.items():
            reporter.show(f"{kind}: {what}, {decimal(sum(entry.size for entry in found if entry.kind == kind))}")
        reporter.show(f"LLMs from the hub lie in {_hub_cache()}: `hf cache ls` lists them")

    reporter = Reporter()
    answer(fmt, {"cache": facts, "hub": _hub_cache()}, show)


@app.command("clean")
def clean_command(
    kinds: Annotated[
        list[str] | None, typer.Argument(help="datasets, given, states, downloads, backbones, compiled [all].")
    ] = None,
    older: Annotated[int, typer.Option(min=0, help="Only what was written at least so many days ago.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what is kept, or the kinds of it that are named. LLMs from the hub are `hf cache`'s affair."""
    from rich.filesize import decimal

    from msekit.cache_contents import KINDS, entries, remove
    from msekit.reporter import Reporter

    reporter = Reporter()
    found = entries(kinds or KINDS, older)
    if not found:
        reporter.note("nothing to remove")
        return
    for entry in found:
        reporter.note(f"{entry.kind}/{entry.name}, {decimal(entry.size)}")
    if not yes and not typer.confirm(f"Remove {decimal(sum(entry.size for entry in found))}?", err=True):
        raise typer.Exit(1)
    kept = [entry for entry in found if not remove(entry)]
    for entry in kept:
        reporter.warn(f"{entry.kind}/{entry.name} is in use by another process and stays")
    reporter.note(f"removed {decimal(sum(entry.size for entry in found if entry not in kept))}")


@app.command("fetch-face-model")
def fetch_face_model_command() -> None:
    """Fetch the face landmarker's model, 4 MB, from Google's own publication."""
    from msekit.media.face_model import URL, fetch_face_model
    from msekit.reporter import Reporter

    Reporter().note(f"the face landmarker's model of {URL}")
    Reporter().note(f"it lies in {fetch_face_model()}")


def _hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
