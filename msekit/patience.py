"""What is shown where nobody sees a bar move: a line a minute in a file or a pipe, and how long something will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 60.0
"""Between two lines."""
_UNITS = ((86400, "days"), (3600, "h"), (60, "min"))
_SOON = 1.5


def in_time(seconds: float) -> str:
    """A duration as people say it: `45 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for size, name in _UNITS:
        if seconds >= _SOON * size:
            return f"{seconds / size:.0f} {name}" if size == 60 else f"{seconds / size:.1f} {name}"
    return f"{max(seconds, 0):.0f} s"


class Lines:
    """Progress as lines, one in every `EVERY_S` seconds at most.

    Args:
        say: Shows a line.
        text: What makes progress.
        total: Steps in all.
        start: Steps that were done before.
        counted: How a number of steps is written.
    """

    def __init__(
        self, say: Callable[[str], None], text: str, total: int, start: int, counted: Callable[[int], str]
    ) -> None:
        self.say, self.text, self.total, self.counted = say, text, total, counted
        self.done, self.start = start, start
        self.began = self.said = time.monotonic()

    def advance(self, steps: int, figures: str = "") -> None:
        """Count steps; say so where it is time to."""
        self.done += steps
        now = time.monotonic()
        if now - self.said < EVERY_S or self.done >= self.total:
            return
        self.said = now
        left = (self.total - self.done) * (now - self.began) / max(self.done - self.start, 1)
        parts = [f"{self.counted(self.done)} of {self.counted(self.total)}", figures, f"{in_time(left)} left"]
        self.say(f"{self.text}: {', '.join(part for part in parts if part)}")


@contextmanager
def still_at_it(say: Callable[[str], None], text: Callable[[], str]) -> Iterator[None]:
    """Say every `EVERY_S` seconds that something is still going on."""
    over, began = threading.Event(), time.monotonic()

    def remind() -> None:
        while not over.wait(EVERY_S):
            say(f"{text()}: since {in_time(time.monotonic() - began)}")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        over.set()
        reminder.join()
