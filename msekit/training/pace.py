"""Where training stands, in the words of its lines: step, loss, samples a second, and what is left of the run."""

from __future__ import annotations

from msekit.patience import in_time
from msekit.reporter import Reporter
from msekit.runs.progress import Progress

_SURE_AFTER_S = 10.0
"""Seconds of training after which its speed says how long the run will take."""


class Pace:
    """The speed of a run; says once how long the run will take.

    Args:
        seed: Its seed.
        epochs: Of its schedule.
        samples: Of an epoch.
        steps: Of the schedule.
        reporter: Where it is said.
    """

    def __init__(self, seed: int, epochs: int, samples: int, steps: int, reporter: Reporter) -> None:
        self.seed, self.epochs, self.samples, self.steps, self.reporter = seed, epochs, samples, steps, reporter
        self.said = False

    def epoch(self, progress: Progress) -> str:
        """What a line about the current epoch begins with."""
        return f"seed {self.seed}, epoch {progress.epoch + 1} of {self.epochs}"

    def figures(self, progress: Progress) -> str:
        """The latest figures; the first time that the speed is known, also a line about the whole run."""
        left = max(self.epochs * self.samples - progress.trained, 0) / max(progress.speed, 1e-9)
        if not self.said and progress.seconds >= _SURE_AFTER_S:
            self.said = True
            if left >= _SURE_AFTER_S:
                self.reporter.note(
                    f"seed {self.seed}: {self.epochs} epochs will be over in about {in_time(left)} at "
                    f"{progress.speed:.1f} samples/s, without validation, if training does not end early"
                )
        return (
            f"step {progress.step:,} of {self.steps:,}, loss {progress.mean_loss:.3f}, "
            f"{progress.speed:.1f} samples/s, {in_time(left)} left of the run"
        )
