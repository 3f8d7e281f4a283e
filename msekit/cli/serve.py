"""`msekit serve`: a local page and a JSON endpoint for trained plug-ins on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msekit.cli import options
from msekit.errors import needs_extra

if TYPE_CHECKING:
    from msekit.inference.host import PlugInHost
    from msekit.reporter import Reporter


def serve_command(
    runs: Annotated[list[str], typer.Argument(help="Runs, exported folders or hub repositories, on one backbone.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let other machines in.")] = (
        "127.0.0.1"
    ),
    dataset: Annotated[str | None, typer.Option(help="Data set to pick samples from [the run's own].")] = None,
    source: Annotated[Path | None, typer.Option(help="Where its files, or those of the runs, lie now.")] = None,
    read_only_samples: Annotated[
        bool, typer.Option(help="Answer the data set's samples alone: nothing typed or uploaded is read.")
    ] = False,
    backbone: Annotated[str | None, typer.Option(help="Another name, folder or hub id of the runs' backbone.")] = None,
    quantization: options.Quantization = None,
    force: Annotated[bool, typer.Option(help="Use a backbone whose fingerprint differs from a run's.")] = False,
) -> None:
    """Serve a page on this machine: type, add features, see the answer with and without each modality."""
    from msekit.reporter import Reporter
    from msekit.runs.folder import fetch_run

    folders = [fetch_run(run) for run in runs]  # before libraries load
    try:
        from msekit.serving.app import create_app
        from msekit.serving.server import Server, bound
        from msekit.serving.shelf import shelf_of
    except ImportError as error:
        raise needs_extra(f"serving needs {error.name}", "serve") from error
    held = bound(host, port)
    from msekit.serving.request_queue import RequestQueue
    from msekit.serving.uploads import remove_leftovers

    remove_leftovers()
    reporter = Reporter()
    named = dict(zip(_names(runs), folders, strict=True))
    shelves = {}
    for name, folder in named.items():  # before the LLM loads: what is required may not be there
        reporter.note(f"{name}: looking for samples to pick from")
        with reporter.status(f"samples for {name}"):
            shelf = shelf_of(folder, dataset, source, reporter, required=read_only_samples)
        if shelf is not None:
            shelves[name] = shelf
    plug_ins = _loaded(named, backbone, quantization, force, reporter)
    queue = RequestQueue(plug_ins)
    loopback = host in ("127.0.0.1", "localhost", "::1")
    if not loopback:
        reporter.warn(f"listening on {host}: whoever reaches this machine can use the page; there is no log-in")
    app = create_app(queue, shelves, None if loopback else ["*"], read_only_samples)
    address = f"http://{f'[{host}]' if ':' in host else host}:{held.getsockname()[1]}"
    server = Server(app, lambda: reporter.note(f"{address}  (Ctrl-C ends it)"))
    try:
        server.run([held])
    except KeyboardInterrupt:
        pass
    finally:
        queue.close()


def _loaded(
    folders: Mapping[str, Path], backbone: str | None, quantization: str | None, force: bool, reporter: Reporter
) -> PlugInHost:
    """The LLM as the first run holds it, and every plug-in on it; a line for what is to be known of each."""
    from msekit.inference.host import PlugInHost
    from msekit.inference.load import load_run
    from msekit.media.at_hand import not_at_hand

    first = next(iter(folders))
    reporter.note(f"loading {first} and its LLM")
    with reporter.status(f"loading {first}"):
        plug_ins = PlugInHost(load_run(folders[first], backbone, quantization=quantization, force=force).backbone)
    for name, folder in folders.items():
        added = plug_ins.add(name, folder, force=force)
        for notice in (*added.notices, *not_at_hand(added.description.dataset.extractors)):
            reporter.warn(f"{name}: {notice}")
    return plug_ins


def _names(runs: list[str]) -> list[str]:
    """What the page calls the runs: the last telling part of their paths, made different where equal."""
    names: list[str] = []
    for run in runs:
        path = Path(run)
        name = path.name if not path.name.startswith("seed-") else f"{path.parent.name} {path.name}"
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names
