"""What a user reads: a command's result on stdout; notices, warnings and progress on stderr.

Both are silent in all but one process of a distributed run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from msekit.errors import shown

UNCUT = 100_000
"""Columns of a stdout that is no terminal: whoever reads a pipe or a file wants whole lines."""


class Reporter:
    """Results, notices and progress bars.

    Args:
        quiet: Show nothing (other processes of a distributed run).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, width=None if sys.stderr.isatty() else UNCUT)
        width = None if sys.stdout.isatty() else UNCUT
        self.results = Console(quiet=quiet, highlight=False, width=width)

    def show(self, *results: RenderableType) -> None:
        """A part of the command's result: a table, or a text without markup; control characters are spelt out.

        A table's title and caption become lines of their own; rich would break them at the table's width.
        """
        for result in results:
            lines: list[RenderableType | None] = [shown(result, "\n\t") if isinstance(result, str) else result]
            if isinstance(result, Table):
                lines = [result.title, result, result.caption]
                result.title = result.caption = None
            for line in (line for line in lines if line is not None):
                self.results.print(line, markup=False, soft_wrap=not isinstance(line, Table))

    def note(self, text: str) -> None:
        """A line of information."""
        self.console.print(escape(shown(text, "\n")), soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line that the user should act on."""
        self.console.print(f"[yellow]warning:[/yellow] {escape(shown(text))}", soft_wrap=True)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Say that something takes a while; without a terminal, where it takes minutes."""
        from msekit.patience import still_at_it

        text = shown(text)
        waiting = (
            self.console.status(escape(text)) if self.console.is_terminal else still_at_it(self.note, lambda: text)
        )
        with waiting:
            yield

    @contextmanager
    def rows(self, text: str) -> Iterator[Callable[[str, int], None]]:
        """Say that rows pass; call what it yields with the split and the number of its rows so far."""
        from msekit.patience import still_at_it

        latest = text = shown(text)

        def passed(split: str, rows: int) -> None:
            nonlocal latest
            if rows % 64 == 0:
                latest = f"{text}: {split}, {rows:,} rows"
                if status is not None:
                    status.update(escape(latest))

        if not self.console.is_terminal:
            status = None
            with still_at_it(self.note, lambda: latest):
                yield passed
            return
        with self.console.status(escape(text)) as status:
            yield passed

    @contextmanager
    def bar(self, text: str, total: int, start: int = 0, in_bytes: bool = False) -> Iterator[Any]:
        """A progress bar, or without a terminal a line a minute; call what it yields with (steps, the latest figures).

        Args:
            text: What makes progress.
            total: Steps in all.
            start: Steps that were done before.
            in_bytes: The steps are bytes.
        """
        if not self.console.is_terminal:
            from msekit.patience import Lines

            counted: Callable[[int], str] = decimal if in_bytes else "{:,}".format
            yield Lines(self.note, text, total, start, counted).advance
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn() if in_bytes else MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=self.console.quiet) as progress:
            task = progress.add_task(escape(shown(text)), total=total, completed=start, figures="")

            def advance(steps: int, figures: str = "") -> None:
                progress.update(task, advance=steps, figures=figures)

            yield advance


def seen(text: str) -> Text:
    """A text for a table or a tree: no markup, control characters spelt out."""
    return Text(shown(text))


def table_of(
    headings: Iterable[str],
    rows: Iterable[Iterable[str]],
    title: str | None = None,
    *,
    caption: str | None = None,
    numbers_from: int | None = None,
) -> Table:
    """A table of plain text, for `Reporter.show`.

    Args:
        headings: One per column.
        rows: Cells as they are, without markup.
        title: Above it.
        caption: Below it.
        numbers_from: The first of the columns that are aligned on the right; None for none.
    """
    table = Table(title=None if title is None else seen(title), caption=None if caption is None else seen(caption))
    for number, heading in enumerate(headings):
        right = numbers_from is not None and number >= numbers_from
        table.add_column(seen(heading), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(seen(cell) for cell in row))
    return table
