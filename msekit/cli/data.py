"""`msekit data`: fetch features from the hub, prepare the Arrow cache, look at it, list what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Data sets: fetch, prepare, info, list.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="Catalogue name, or a YAML describing your own.")]
Source = Annotated[Path | None, typer.Option(help="Folder or file of the published features.")]


@app.command("fetch")
def fetch_command(name: Name) -> None:
    """Download the published features from the hub, or check and complete what is here."""
    from msekit.data.catalogue import resolve_dataset
    from msekit.data.hub import fetch
    from msekit.reporter import Reporter

    reporter = Reporter()
    reporter.note(f"complete: {fetch(resolve_dataset(name), reporter)}")


@app.command("prepare")
def prepare_command(name: Name, source: Source = None) -> None:
    """Check the published features and build the cache that training maps into memory."""
    _show(name, source)


@app.command("info")
def info_command(name: Name, source: Source = None) -> None:
    """Show sizes, widths, labels and unusual values (building the cache first where needed)."""
    _show(name, source)


@app.command("list")
def list_command() -> None:
    """List the catalogue."""
    from rich.console import Console
    from rich.table import Table

    from msekit.data.catalogue import DATASETS

    table = Table("name", "task", "language", "labels or range", "audio × vision width", "train/valid/test")
    for spec in DATASETS.values():
        labels = ", ".join(spec.labels) if spec.labels else str(list(spec.range or ()))
        widths = " × ".join("?" if width is None else str(width) for width in (spec.audio_width, spec.vision_width))
        table.add_row(
            spec.name, spec.task, spec.language, labels, widths, "/".join(map(str, spec.split_sizes or ("?",)))
        )
    Console(stderr=True).print(table)


def _show(name: str, source: Path | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from msekit.data.cache import prepare
    from msekit.data.catalogue import SPLITS, resolve_dataset
    from msekit.data.hub import with_features
    from msekit.reporter import Reporter

    reporter = Reporter()
    spec = with_features(resolve_dataset(name, source), reporter)
    with reporter.status(f"preparing {name}"):
        cache = prepare(spec)
    info = cache.info
    for warning in info.warnings:
        reporter.warn(warning)
    table = Table("", *SPLITS, title=f"{info.name} ({info.task})")
    table.add_row("samples", *(str(info.splits[split].samples) for split in SPLITS))
    for modality in ("audio", "vision"):
        found = getattr(info, modality)
        if not found.width:
            table.add_row(modality, *("none" for _ in SPLITS))
            continue
        table.add_row(f"{modality} absent", *(str(found.absent.get(split, 0)) for split in SPLITS))
        bad = (f"{found.nonfinite.get(s, 0)} in {found.nonfinite_rows.get(s, 0)} samples" for s in SPLITS)
        table.add_row(f"{modality} non-finite values", *bad)
    for label in sorted({label for split in SPLITS for label in info.splits[split].label_counts}):
        table.add_row(escape(f"label {label}"), *(str(info.splits[s].label_counts.get(label, 0)) for s in SPLITS))
    reporter.console.print(table)
    for modality in ("audio", "vision"):
        found = getattr(info, modality)
        if found.width:
            reporter.note(f"{modality}: width {found.width}, longest {found.longest} frames")
    reporter.console.print(escape(f"fingerprint {info.fingerprint}\ncache {cache.path}"), soft_wrap=True)
