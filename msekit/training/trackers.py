"""`--track`: a run's steps, epochs and result in experiment trackers, each told everything once.

How far each has been told stands in the run's folder; a run that goes on tells the rest from `steps.jsonl` and
`metrics.jsonl`. A tracker that fails in the middle of a run is left, with a warning: the run goes on.
"""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.runs.files import REPORT, TRACKING, write_json
from msekit.settings.choices import Tracker
from msekit.training.callbacks import EpochJudged, RunEnded, RunStarted, StepTaken
from msekit.training.step_log import step_line
from msekit.training.tracker_figure import answers_figure
from msekit.training.tracker_ways import Place, refuse_together, settings_of, start, theirs

_PLAIN = re.compile(r"\w[\w.:/ -]*", re.ASCII)
_NOT_TAKEN = re.compile(r"[^\w.:/ -]")  # a class in the name of a metric: `f1_of:neutral (calm)`
EVERY_S = 5.0
"""How often steps are handed on; trackers take them in batches better than one by one."""


@dataclass(frozen=True)
class Told:
    """How far a tracker has been told."""

    id: str
    """Of the run there."""
    step: int = 0
    epoch: int = 0
    ended: bool = False


class Trackers:
    """The trackers of one run.

    Args:
        event: Where the run stands.
        before: The lines of `steps.jsonl` so far.
        together: How many runs this process trains at once.
        reporter: Where warnings go.

    Raises:
        MsekitError: A tracker cannot be started, or not for several runs at once.
    """

    def __init__(self, event: RunStarted, before: list[dict[str, Any]], together: int, reporter: Reporter) -> None:
        self.config, self.reporter = event.config, reporter
        self.path = event.config.output / TRACKING
        self.told = self._remembered()
        self.waiting: list[tuple[int, int, dict[str, Any]]] = []
        """(step, epoch or 0, values), not handed on yet."""
        self.last_handed = time.monotonic()
        self.trackers: dict[Tracker, Any] = {}
        refuse_together(event.config.tracking.trackers, together)
        for name in event.config.tracking.trackers:
            try:
                self._start(name)
            except BaseException:
                self.close()
                raise
        self.waiting = self._past(event, before) if self.trackers else []
        self.hand_on()

    def _remembered(self) -> dict[Tracker, Told]:
        if not self.path.is_file():
            return {}
        try:
            return {name: Told(**told) for name, told in json.loads(self.path.read_text(encoding="utf-8")).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise MsekitError(f"the file is damaged: {error}", where=self.path, fix="Remove it.") from error

    def _start(self, name: Tracker) -> None:
        told = self.told.get(name)
        place = Place(self.config, told.id if told else uuid.uuid4().hex, told is not None, 1)
        told = told or Told(place.id)
        if (has := theirs(name, place)) is not None:
            told = replace(told, step=has[0], epoch=has[1])
        self.trackers[name] = start(name, replace(place, next_step=told.step + 1))
        if name == "mlflow":
            told = replace(told, id=self.trackers[name].tracker.info.run_id)
        self.told[name] = told
        self._remember()

    def _remember(self) -> None:
        write_json(self.path, {name: asdict(told) for name, told in self.told.items()})

    def _past(self, event: RunStarted, before: list[dict[str, Any]]) -> list[tuple[int, int, dict[str, Any]]]:
        """What was logged before this process began, in the order of time."""
        steps = [(line["step"], 0, of_step(line)) for line in before]
        epochs = [(event.steps_per_epoch * line["epoch"], line["epoch"], of_epoch(line)) for line in event.history]
        return sorted(steps + epochs, key=lambda entry: entry[:2])

    def step(self, event: StepTaken) -> None:
        """One more step."""
        if self.trackers:
            self.waiting.append((event.step, 0, of_step(step_line(event))))
            if time.monotonic() - self.last_handed > EVERY_S:
                self.hand_on()

    def epoch(self, event: EpochJudged) -> None:
        """One more epoch."""
        if self.trackers:
            self.waiting.append((event.step, event.epoch, of_epoch(event.values)))
            self.hand_on()

    def hand_on(self) -> None:
        """Tell every tracker what it has not been told."""
        for name in tuple(self.trackers):
            self.attempt(name, lambda name=name: self._tell(name))  # type: ignore[misc]
        self.waiting.clear()
        self.last_handed = time.monotonic()
        if self.trackers:
            self._remember()

    def _tell(self, name: Tracker) -> None:
        for step, epoch, values in self.waiting:
            told = self.told[name]
            if (epoch > told.epoch) if epoch else (step > told.step):
                self.log(name, values, step)
                told = replace(told, epoch=epoch) if epoch else replace(told, step=step)
                self.told[name] = replace(told, ended=False)  # a result that was told is of fewer epochs

    def log(self, name: Tracker, values: dict[str, Any], step: int) -> None:
        """Hand numbers to one tracker."""
        own = {"run_id": self.told[name].id} if name == "mlflow" else {}  # else it is the run that was started last
        self.trackers[name].log(values, step=step, **own)

    def end(self, event: RunEnded) -> None:
        """The result, where there is one."""
        self.hand_on()
        if event.report is None:
            return
        values = {f"test/{name}": value for name, value in _numbers(event.report["metrics"]).items()}
        values["best_epoch"] = event.report["best_epoch"]
        for name in tuple(self.trackers):
            if not self.told[name].ended:
                self.attempt(name, lambda name=name: self._result(name, values, event.step))  # type: ignore[misc]

    def _result(self, name: Tracker, values: dict[str, Any], step: int) -> None:
        tracker, report = self.trackers[name], self.config.output / REPORT
        picture = answers_figure(self.config.output)
        if name == "tensorboard":  # settings and results side by side are told in one call
            tracker.log({"report": f"```\n{report.read_text(encoding='utf-8')}\n```"}, step=step)
            tracker.tracker.add_hparams(settings_of(self.config), values, run_name=".", global_step=step)
        else:
            self.log(name, values, step)
        if name == "mlflow":
            from mlflow import MlflowClient

            MlflowClient().log_artifact(self.told[name].id, str(report))
        if picture is not None and name in ("tensorboard", "wandb", "swanlab"):
            form = {"dataformats": "NHWC"} if name == "tensorboard" else {}
            tracker.log_images({"test/answers": picture[None]}, step=step, **form)
        self.told[name] = replace(self.told[name], ended=True)
        self._remember()

    def attempt(self, name: Tracker, action: Callable[[], None]) -> None:
        """Do something with a tracker; one that fails is left."""
        try:
            action()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.reporter.warn(f"the tracker {name} failed and is told nothing more; the run goes on ({reason})")
            del self.trackers[name]

    def close(self) -> None:
        """End the runs there, for this time."""
        for name in reversed(tuple(self.trackers)):
            self.attempt(name, self.trackers[name].finish)


def of_step(line: dict[str, Any]) -> dict[str, Any]:
    """A line of `steps.jsonl` as trackers are told it."""
    return {f"train/{name}": value for name, value in _numbers(line).items() if name not in ("step", "epoch")}


def of_epoch(line: dict[str, Any]) -> dict[str, Any]:
    """A line of `metrics.jsonl` likewise."""
    values = {"epoch": line["epoch"], "train/epoch_loss": line["train_loss"], "valid/loss": line["valid_loss"]}
    values |= {f"valid/{name}": value for name, value in line["valid"].items()}
    return _numbers(values | ({"valid/llm_weight": line["llm_weight"]} if "llm_weight" in line else {}))


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Those that are finite numbers, by names that every tracker takes (MLflow ends a run by any other); of a table by
    label its entries, labels beyond plain letters by their place."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {
                f"{name}/{label if _PLAIN.fullmatch(label) else place}": entry
                for place, (label, entry) in enumerate(value.items())
            }
        else:
            flat[name] = value
    finite = {name: value for name, value in flat.items() if isinstance(value, (int, float)) and math.isfinite(value)}
    return {_NOT_TAKEN.sub("_", name): value for name, value in finite.items()}
