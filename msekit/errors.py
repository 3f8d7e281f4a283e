"""The one exception that users meet: what went wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MsekitError(Exception):
    """A user's mistake or an unusable input. The CLI prints it as one line and exits with code 2.

    Args:
        what: What is wrong, in one sentence without a final full stop.
        where: The file, key or row it was found in.
        fix: What to do about it.
    """

    exit_code = 2
    """Of the command that ends with it."""

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        place = f" ({where})" if where is not None else ""
        advice = f". {fix}" if fix else ""
        super().__init__(f"{what}{place}{advice}")


class UnfinishedRunError(MsekitError):
    """Training stopped before its end (a non-finite loss, a signal); what was saved can be resumed."""


class StoppedError(UnfinishedRunError):
    """A signal asked training to stop, and it saved its state first: the same command with --resume goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class LostProcessError(UnfinishedRunError):
    """Another process of a distributed run died or cannot be reached."""

    exit_code = 76  # tells the launcher that the cause lies in another process


class UnsaidLabelsError(MsekitError):
    """Files are given under a name of one's own, without a word about what their labels are."""


def needs_extra(what: str, extra: str, otherwise: str = "") -> MsekitError:
    """The error of a feature whose packages are not installed.

    Args:
        what: What needs which package.
        extra: That of `pyproject.toml` which brings it.
        otherwise: How to do without, as the end of a sentence: "use …".
    """
    return MsekitError(what, fix=f'Run `pip install "msekit[{extra}]"`{otherwise and ", or "}{otherwise}.')


def nearest(name: str, names: Iterable[str]) -> str:
    """Advice that offers the names closest to a mistyped one.

    Args:
        name: What the user wrote.
        names: Every name that would have been accepted.

    Returns:
        "Did you mean ...?" when something is close, "Known: ..." otherwise.
    """
    options = sorted(names)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(options)}"


def choice(names: Iterable[str]) -> str:
    """`a, b or c`: how help texts and errors list the names of a table."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
