"""What each experiment tracker wants to be started with, so that a run that goes on is one run there too.

The trackers are accelerate's own (`accelerate.tracking`); each package is imported when a run asks for it.
"""

from __future__ import annotations

import contextvars
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msekit.errors import MsekitError
from msekit.runs.report import flatten
from msekit.settings.choices import TRACKERS, Tracker
from msekit.settings.config import RunConfig

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Place:
    """A run's place in a tracker."""

    config: RunConfig
    id: str
    """Of the run there; made by us, but by mlflow itself."""
    again: bool
    """Whether it is there already, and goes on."""
    next_step: int
    """The first step that is not told yet."""

    @property
    def group(self) -> str:
        """What the seeds of one experiment share: the name of the folder around theirs."""
        return self.config.output.parent.name

    @property
    def name(self) -> str:
        """The seed's folder."""
        return self.config.output.name


def start(name: Tracker, place: Place) -> Any:
    """A tracker that is ready to be told; accelerate's `GeneralTracker`.

    Raises:
        MsekitError: It cannot be started: no account, no network, a package that is too old or too new.
    """
    from accelerate import tracking

    known = getattr(tracking, "LOGGER_TYPE_TO_CLASS", {})
    if TRACKERS[name] not in known:
        raise MsekitError(f"the installed accelerate has no tracker {name}", fix="pip install --upgrade accelerate")
    named, keywords = _WAYS[name](place)
    with explained(name):
        tracker = known[TRACKERS[name]](*named, **keywords)
        # trackio ends the run that this context started before: one context for each, so that several seeds can run
        contextvars.Context().run(tracker.start)
        if name in ("mlflow", "comet") and not place.again:  # the others take the settings when they start
            tracker.store_init_configuration(settings_of(place.config))
    return tracker


@contextmanager
def explained(name: Tracker) -> Iterator[None]:
    """Turn whatever a tracker's package raises into one line.

    Raises:
        MsekitError: It does.
    """
    try:
        yield
    except Exception as error:
        raise MsekitError(
            f"the tracker {name} cannot be started: {type(error).__name__}: {error}",
            fix="Mend that, or leave it out of --track.",
        ) from error


def settings_of(config: RunConfig) -> dict[str, Scalar]:
    """Every setting by its dotted key, as trackers take them."""
    flat = flatten(config.model_dump(mode="json"))
    return {
        key: value if isinstance(value, (str, int, float, bool)) else "none" if value is None else json.dumps(value)
        for key, value in flat.items()
    }


def _tensorboard(place: Place) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # what was written later than the last steps we know of is void (the event reader drops it)
    purge = {"purge_step": place.next_step} if place.again else {}
    return ("tensorboard", place.config.output), purge


def _wandb(place: Place) -> tuple[tuple[Any, ...], dict[str, Any]]:
    where = {"dir": str(place.config.output), "config": settings_of(place.config)}
    named = {"id": place.id, "name": place.name, "group": place.group}
    return (place.config.tracking.project,), named | where | {"resume": "allow", "reinit": "create_new"}


def _mlflow(place: Place) -> tuple[tuple[Any, ...], dict[str, Any]]:
    tags = {"msekit.group": place.group, "msekit.seed": str(place.config.seed)}
    named = {"run_name": f"{place.group}/{place.name}", "tags": tags}
    return (place.config.tracking.project,), named | {"run_id": place.id if place.again else None, "nested_run": True}


def _trackio(place: Place) -> tuple[tuple[Any, ...], dict[str, Any]]:
    resume = "must" if place.again else "never"
    named = {"name": place.id, "group": place.group, "resume": resume}
    return (place.config.tracking.project,), named | {"config": settings_of(place.config), "embed": False}


def _comet(place: Place) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (place.config.tracking.project,), {"experiment_key": place.id, "mode": "get_or_create"}


def _swanlab(place: Place) -> tuple[tuple[Any, ...], dict[str, Any]]:
    named = {"id": place.id, "name": place.name, "group": place.group, "resume": "allow"}
    folder = place.config.output / "swanlab"
    folder.mkdir(exist_ok=True)
    return (place.config.tracking.project,), named | {"config": settings_of(place.config), "log_dir": str(folder)}


_WAYS = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
    "comet": _comet,
    "swanlab": _swanlab,
}
"""Tracker → a place → what accelerate's class is made with."""

ONE_AT_A_TIME = ("swanlab",)
"""Trackers that hold one run in a process: not for several seeds at once."""


def refuse_together(names: Iterable[Tracker], runs: int) -> None:
    """Refuse trackers that hold one run where a process trains several.

    Raises:
        MsekitError: There is one.
    """
    if runs > 1 and (alone := [name for name in names if name in ONE_AT_A_TIME]):
        raise MsekitError(f"{alone[0]} shows one run of a process", fix="Leave --parallel-seeds out, or it.")


def theirs(name: Tracker, place: Place) -> tuple[int, int] | None:
    """The last step and epoch that the tracker itself has, where it can be asked at once; None for as we remember.

    A kill may come between telling it and remembering that, or while a tracker still keeps to itself what it was told.

    Raises:
        MsekitError: It cannot be asked.
    """
    if not place.again or name not in ("mlflow", "trackio"):
        return None
    with explained(name):
        return _of_mlflow(place) if name == "mlflow" else _of_trackio(place)


def _of_mlflow(place: Place) -> tuple[int, int]:
    from mlflow import MlflowClient

    client = MlflowClient()
    steps = (metric.step for metric in client.get_metric_history(place.id, "train/loss"))
    epochs = (int(metric.value) for metric in client.get_metric_history(place.id, "epoch"))
    return max(steps, default=0), max(epochs, default=0)


def _of_trackio(place: Place) -> tuple[int, int] | None:
    if any(os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")):
        return None  # what lies here is not all that lies there
    from trackio.sqlite_storage import SQLiteStorage

    lines = SQLiteStorage.get_logs(place.config.tracking.project, place.id)
    steps = (line["step"] for line in lines if "train/loss" in line)
    return max(steps, default=0), max((int(line["epoch"]) for line in lines if "epoch" in line), default=0)
