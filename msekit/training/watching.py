"""Who watches a run: the log of its steps, experiment trackers, and callbacks. In the main process alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from msekit.runs.machine import peak_memory
from msekit.training.callbacks import Callback, EpochJudged, RunEnded, RunStarted, StateSaved, StepTaken, Watchers
from msekit.training.decisions import as_decided
from msekit.training.step_log import StepLog
from msekit.training.trackers import Trackers

if TYPE_CHECKING:
    from msekit.training.loop import Run
    from msekit.training.step import Step


class Watch:
    """Those who watch one run: nobody, until it is opened."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.log: StepLog | None = None
        self.trackers: Trackers | None = None
        self.watchers = Watchers()
        self.told_the_end = False

    @contextmanager
    def opened(self, callbacks: Sequence[Callback] = (), together: int = 1) -> Iterator[None]:
        """Within, everything that the run does is told.

        Args:
            callbacks: Called in this order, after the trackers.
            together: How many runs this process trains at once.

        Raises:
            MsekitError: See `Trackers`.
        """
        run = self.run
        if not run.accelerator.is_main_process:
            yield
            return
        steps_per_epoch = run.total_steps // run.config.optim.epochs
        history = tuple(deepcopy(run.progress.history))
        config = as_decided(run.config, run.parts)
        event = RunStarted(config, run.total_steps, steps_per_epoch, run.progress.step, history)
        self.log = StepLog(config.output, event.step)
        try:
            self.trackers = Trackers(event, self.log.before, together, run.reporter)
            self.watchers = Watchers(callbacks)
            self._tell("on_start", event)
            yield
        except BaseException as error:
            self.ended(None, error)
            raise
        finally:
            self.log.close()
            if self.trackers is not None:
                self.trackers.close()

    def step(self, step: Step, samples: int, seconds: float) -> None:
        """A step that was counted."""
        if self.log is None:
            return
        progress, device = self.run.progress, self.run.parts.backbone.device
        event = StepTaken(
            progress.step, progress.epoch + 1, step.loss, step.norm, step.rate, samples, seconds, peak_memory(device)
        )
        self.log.add(event)
        if self.trackers is not None:
            self.trackers.step(event)
        self._tell("on_step", event)

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch that was judged."""
        if self.log is None:
            return
        event = EpochJudged(line["epoch"], self.run.progress.step, deepcopy(line))
        if self.trackers is not None:
            self.trackers.epoch(event)
        self._tell("on_epoch", event)

    def flush(self) -> None:
        """Before a state is saved: its steps are on disk."""
        if self.log is not None:
            self.log.flush()

    def saved(self) -> None:
        """A state that was saved."""
        progress = self.run.progress
        self._tell("on_save", StateSaved(self.run.config.output, progress.step, progress.epoch))

    def ended(self, report: dict[str, Any] | None, error: BaseException | None = None) -> None:
        """The end, with the report or with what broke the run off."""
        if self.told_the_end:
            return
        self.told_the_end = True
        event = RunEnded(self.run.progress.step, deepcopy(report), error)
        if self.trackers is not None:
            self.trackers.end(event)
        self._tell("on_end", event)

    def _tell(self, hook: str, event: Any) -> None:
        self.watchers.tell(hook, event)
        if self.watchers.failure is not None and self.run.signals.failure is None:
            self.run.signals.ask(*self.watchers.failure)
