"""The one exception that users meet: what went wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal takes for a command, what turns the direction of writing, and what no encoding writes."""


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
        super().__init__(shown(f"{what}{place}{advice}".replace("\n", " ")))


class UnfinishedRunError(MsekitError):
    """Training stopped before its end (a non-finite loss, a signal); what was saved can be resumed."""


class StoppedError(UnfinishedRunError):
    """A signal asked training to stop, and it saved its state first: the same command with --resume goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class CallbackError(StoppedError):
    """A callback raised, and training saved its state first; the callback's own error is the cause."""

    exit_code = 2


class LostProcessError(UnfinishedRunError):
    """Another process of a distributed run died or cannot be reached."""

    exit_code = 76  # tells the launcher that the cause lies in another process


class UnsaidLabelsError(MsekitError):
    """Files are given under a name of one's own, without a word about what their labels are."""


def shown(text: str, kept: str = "") -> str:
    """A text that names come into, as a terminal may get it: control characters are spelt out as JSON does, `\\u001b`.

    Args:
        text: What is to be shown.
        kept: Control characters that may stay.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in kept else f"\\u{ord(found[0]):04x}", text)


def without_control_characters(text: str) -> str:
    """The text, for a field of a schema.

    Raises:
        ValueError: It holds a character that `shown` spells out.
    """
    if _UNSEEN.search(text):
        raise ValueError(f"{brief(text)} holds a control character, which a terminal would obey")
    return text


def brief(value: object) -> str:
    """A value as a message shows it: in a line, however large it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    return shown(short.repr(value))


def needs_extra(what: str, extra: str, otherwise: str = "") -> MsekitError:
    """The error of a feature whose packages are not installed.

    Args:
        what: What needs which package.
        extra: That of `pyproject.toml` which brings it.
        otherwise: How to do without, as the end of a sentence: "use …".
    """
    return MsekitError(what, fix=f'Run `pip install "msekit[{extra}]"`{otherwise and ", or "}{otherwise}.')


def nearest(name: str, names: Iterable[str], besides: str = "", inside: str = "") -> str:
    """Advice that offers the names closest to a mistyped one.

    Args:
        name: What the user wrote.
        names: Every name that would have been accepted.
        besides: A sentence on what else would have been.
        inside: What stands before each name where it is written in full: `optim.`.

    Returns:
        "Did you mean ...?" when something is close, "Known: ..." otherwise.
    """
    options = sorted(names)
    close = [inside + option for option in difflib.get_close_matches(name, options, n=3, cutoff=0.5)]
    advice = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(options)}{'.' * bool(besides)}"
    return f"{advice} {besides}".rstrip()


def choice(names: Iterable[str]) -> str:
    """`a, b or c`: how help texts and errors list the names of a table."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
