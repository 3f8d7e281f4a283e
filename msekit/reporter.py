"""What a user watches: notices, warnings and progress, on stderr through rich; silent in all but one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Reporter:
    """Notices and progress bars.

    Args:
        quiet: Show nothing (other processes of a distributed run).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def note(self, text: str) -> None:
        """A line of information."""
        self.console.print(escape(text))

    def warn(self, text: str) -> None:
        """A line that the user should act on."""
        self.console.print(f"[yellow]warning:[/yellow] {escape(text)}")

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Say that something takes a while."""
        with self.console.status(escape(text)):
            yield

    @contextmanager
    def rows(self, text: str) -> Iterator[Callable[[str, int], None]]:
        """Say that rows pass; call what it yields with the split and the number of its rows so far."""
        with self.console.status(escape(text)) as status:

            def passed(split: str, rows: int) -> None:
                if rows % 64 == 0:
                    status.update(escape(f"{text}: {split}, {rows} rows"))

            yield passed

    @contextmanager
    def bar(self, text: str, total: int, start: int = 0) -> Iterator[Any]:
        """A progress bar; call what it yields with (steps, a short text with the latest figures)."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=self.console.quiet) as progress:
            task = progress.add_task(escape(text), total=total, completed=start, figures="")

            def advance(steps: int, figures: str = "") -> None:
                progress.update(task, advance=steps, figures=figures)

            yield advance
