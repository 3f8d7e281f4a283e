"""How commands give their answer: a table for people or one JSON document for programs, either on stdout.

Warnings and notices go through `Reporter` to stderr.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msekit.errors import shown

if TYPE_CHECKING:
    from rich.table import Table

Format = Annotated[
    Literal["table", "json"], typer.Option("--format", help="A table, or one JSON document; both on stdout.")
]


class PlainFormatter(logging.Formatter):
    """Warnings of msekit's log as lines, control characters spelt out."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return f"warning: {shown(super().format(record), kept=chr(10))}"


def answer(fmt: str, document: Any, show: Callable[[], None]) -> None:
    """Print a command's result as `--format` says.

    Args:
        fmt: `table` or `json`.
        document: What `json` prints.
        show: Prints the table.
    """
    if fmt == "json":
        print_json(document)
    else:
        show()


def print_json(document: Any) -> None:
    """One JSON document on stdout: characters as they are but for those that steer a terminal, no NaN."""
    typer.echo(shown(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1), "\n"))


def table_of_facts(facts: dict[str, Any], title: str | None = None) -> Table:
    """A line per fact; None is left out, whole numbers carry thousands' commas, truth values are yes and no."""
    from msekit.reporter import table_of

    rows = [(name, _words(value)) for name, value in facts.items() if value is not None]
    table = table_of(("", ""), rows, title)
    table.show_header = False
    return table


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
