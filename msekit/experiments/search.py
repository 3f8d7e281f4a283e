"""A search over settings, where a grid file has `search:`, by Optuna: TPE proposes, the median of others prunes.

    output: runs/search
    base: {backbone: smollm2-135m, dataset: meld6.yaml, optim.epochs: 5}
    search:
      trials: 20
      settings:
        optim.lr: {log: [1e-4, 1e-2]}
        data.noise: {uniform: [0, 0.6]}
        adapter.pseudo_tokens: {integer: [2, 8]}
        loss.balance: {choice: [none, class-balanced]}

Every trial is a run folder that is trained and validated. The test split is neither opened nor scored before the best
trial is chosen, which alone is then tested. The study lies in the output folder; a search that was killed goes on with
the trial it was at, and ends as an undisturbed one: what is proposed is a function of the seed, the trial's number, the
setting and the trials before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msekit.errors import CallbackError, MsekitError, StoppedError, UnfinishedRunError, nearest, needs_extra
from msekit.evaluation.metrics import higher_is_better
from msekit.experiments.grid import request_of
from msekit.reporter import Reporter
from msekit.runs.files import SEARCH, STUDY, write_json
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of
from msekit.settings.plan_runs import plan_runs
from msekit.training.callbacks import Callback, EpochJudged, RunStarted
from msekit.yaml_file import read_mapping

KEYS = ("trials", "seed", "startup", "prune", "settings")
KINDS = ("log", "uniform", "integer", "choice")


@dataclass(frozen=True)
class Range:
    """What a setting may be."""

    kind: str
    """One of `KINDS`."""
    values: tuple[Any, ...]
    """The choices; or the lowest and the highest number."""


@dataclass(frozen=True)
class Search:
    """A search, as its file has it."""

    output: Path
    base: dict[str, Any]
    settings: dict[str, Range]
    trials: int
    seed: int = 0
    """Of the proposals; a run's own seed is a setting."""
    startup: int = 5
    """Trials that are drawn at random, before TPE and the pruner begin."""
    prune: bool = True

    def config(self, number: int, proposed: dict[str, Any]) -> RunConfig:
        """The run of a trial.

        Raises:
            MsekitError: A setting that `msekit train` would refuse.
        """
        return plan_runs(request_of(self.base | proposed, self.output / f"trial-{number:03}"))[0][0]

    @property
    def definition(self) -> dict[str, Any]:
        """What must be the same for a search to go on; more trials may be asked for."""
        ranges = {name: [space.kind, list(space.values)] for name, space in self.settings.items()}
        return {"base": self.base, "settings": ranges, "seed": self.seed, "startup": self.startup, "prune": self.prune}


def is_search(file: Path) -> bool:
    """Whether a grid file describes a search."""
    return "search" in read_mapping(file, "grid file")


def read_search(file: Path) -> Search:
    """Read a search, and check that the ends of its ranges are settings that a run takes.

    Raises:
        MsekitError: An unknown key, a range that is none, or a setting that `msekit train` would refuse.
    """
    raw = read_mapping(file, "grid file")
    said, base = raw.get("search"), raw.get("base") or {}
    if "grid" in raw or not isinstance(said, dict) or not isinstance(said.get("settings"), dict):
        raise MsekitError("a search needs `search:` with `trials` and `settings`, and no `grid:`", where=file)
    for key in raw.keys() - {"output", "base", "search"}:
        raise MsekitError(f"unknown key '{key}'", where=file, fix=nearest(key, ("output", "base", "search")))
    for key in said.keys() - set(KEYS):
        raise MsekitError(f"search: unknown key '{key}'", where=file, fix=nearest(key, KEYS))
    numbers = {key: said.get(key, usual) for key, usual in (("trials", 0), ("seed", 0), ("startup", 5))}
    if not all(isinstance(number, int) and number >= 0 for number in numbers.values()) or not numbers["trials"]:
        raise MsekitError(
            "search: `trials`, `seed` and `startup` are whole numbers, and `trials` is needed", where=file
        )
    settings = {name: _range(name, value, file) for name, value in said["settings"].items()}
    output = Path(str(raw.get("output") or Path("runs") / file.stem)).resolve()
    search = Search(output, base, settings, **numbers, prune=bool(said.get("prune", True)))
    for place in (0, -1):
        search.config(0, {name: space.values[place] for name, space in settings.items()})
    return search


def _range(name: str, value: Any, file: Path) -> Range:
    where = f"{file}, {name}"
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(next(iter(value.values())), list):
        example = "{log: [1e-4, 1e-2]}, {uniform: [0, 1]}, {integer: [2, 8]} or {choice: [a, b]}"
        raise MsekitError("a setting that is searched has one kind and a list", where=where, fix=f"Write {example}.")
    ((kind, values),) = value.items()
    if kind not in KINDS:
        raise MsekitError(f"there is no kind '{kind}' of range", where=where, fix=nearest(str(kind), KINDS))
    if kind == "choice":
        if len(values) < 2:
            raise MsekitError("a choice is between two or more", where=where)
        return Range(kind, tuple(tuple(part) if isinstance(part, list) else part for part in values))
    try:  # YAML takes 1e-4 for a text
        low, high = (int(part) if kind == "integer" else float(part) for part in values)
    except (TypeError, ValueError):
        raise MsekitError(f"`{kind}` takes the lowest and the highest number", where=where) from None
    if not low < high or (kind == "log" and low <= 0):
        raise MsekitError(f"`{kind}` takes the lowest and then the highest number, above 0 for log", where=where)
    return Range(kind, (low, high))


class PrunedError(Exception):
    """The trial is worse than most were at this epoch."""


class Pruning(Callback):
    """Tells Optuna every epoch's validation score, and stops the run where the pruner says so."""

    def __init__(self, trial: Any, key: str) -> None:
        self.trial, self.key = trial, key

    def on_start(self, event: RunStarted) -> None:
        """A run that goes on: what was decided before it was killed is decided again."""
        for line in event.history:
            self._judge(line)

    def on_epoch(self, event: EpochJudged) -> None:
        """Report, and ask."""
        self._judge(event.values)

    def _judge(self, line: dict[str, Any]) -> None:
        value = line["valid"][self.key]
        if value is None:
            return
        if line["epoch"] not in self.trial.study.trials[self.trial.number].intermediate_values:
            self.trial.report(value, line["epoch"])
        if self.trial.should_prune():
            raise PrunedError


def run_search(search: Search, reporter: Reporter) -> dict[str, Any]:
    """Run what is not finished yet, then test the best trial.

    Returns:
        The content of `search.json`: `trials` (state, settings, validation score) and `best` with its test.

    Raises:
        MsekitError: Optuna is not installed, the folder holds another search, or no trial came to an end.
        StoppedError: A signal stopped it.
    """
    key = spec_of(search.config(0, {name: space.values[0] for name, space in search.settings.items()})).key_metric
    study = open_study(search, key)
    while sum(trial.state.is_finished() for trial in study.trials) < search.trials:
        _run_trial(search, study, key, reporter)
    if not any(trial.state.name == "COMPLETE" for trial in study.trials):
        raise MsekitError("no trial came to an end", where=search.output, fix="Their folders say why.")
    from msekit.training.loop import train

    best = search.config(study.best_trial.number, study.best_trial.user_attrs["settings"])
    reporter.note(f"the best is trial {study.best_trial.number}: {key} {study.best_value:.4f}; now it is tested")
    report = train(best, resume=True, reporter=reporter)
    outcome = {
        "key_metric": key,
        "trials": [
            {"number": t.number, "state": t.state.name.lower(), "settings": t.user_attrs["settings"], "valid": t.value}
            for t in study.trials[: search.trials]
        ],
        "best": {"number": study.best_trial.number, "valid": study.best_value, "test": report["metrics"],
                 "folder": str(best.output)},
    }  # fmt: skip
    write_json(search.output / SEARCH, outcome)
    return outcome


def open_study(search: Search, key: str) -> Any:
    """The study in the output folder, made if it is not there.

    Raises:
        MsekitError: Optuna is not installed, or the study is of another search.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise needs_extra("a search needs optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search.output.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(search.startup) if search.prune else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(search.output / STUDY))),
        study_name="search",
        direction="maximize" if higher_is_better(key) else "minimize",
        pruner=pruner,
        load_if_exists=True,
    )
    definition = json.loads(json.dumps(search.definition))
    if study.user_attrs.get("search", definition) != definition:
        raise MsekitError("the folder holds another search", where=search.output, fix="Change output.")
    study.set_user_attr("search", definition)
    return study


def _run_trial(search: Search, study: Any, key: str, reporter: Reporter) -> None:
    """One trial: the one that was interrupted, or a new one."""
    import torch
    from optuna.trial import Trial, TrialState

    from msekit.training.loop import train

    open_trials = study.get_trials(states=(TrialState.RUNNING,))
    study.sampler = _sampler(search, "begin")
    trial = Trial(study, open_trials[0]._trial_id) if open_trials else study.ask()
    proposed = {name: _propose(search, study, trial, name, space) for name, space in search.settings.items()}
    config = search.config(trial.number, proposed)
    trial.set_user_attr("settings", json.loads(json.dumps(proposed)))
    reporter.note(f"trial {trial.number}: {', '.join(f'{name}={value}' for name, value in proposed.items())}")
    best = Best(key)
    try:
        train(config, resume=True, reporter=reporter, callbacks=(best, Pruning(trial, key)), test=False)
    except CallbackError as error:
        if not isinstance(error.__cause__, PrunedError):
            raise
        reporter.note(f"trial {trial.number} is pruned after epoch {best.epoch}")
        study.tell(trial.number, state=TrialState.PRUNED)
    except StoppedError:
        raise
    except (MsekitError, torch.OutOfMemoryError) as error:
        reporter.warn(f"trial {trial.number} failed: {error}")
        study.tell(trial.number, state=TrialState.FAIL)  # else the next command would take it up again, for ever
        if not isinstance(error, UnfinishedRunError) and not study.get_trials(states=(TrialState.COMPLETE,)):
            raise
    else:
        study.tell(trial.number, best.value, state=TrialState.FAIL if best.value is None else TrialState.COMPLETE)


class Best(Callback):
    """The best epoch's validation score."""

    def __init__(self, key: str) -> None:
        self.key, self.sign = key, 1 if higher_is_better(key) else -1
        self.value: float | None = None
        self.epoch = 0

    def on_start(self, event: RunStarted) -> None:
        """Epochs before a kill."""
        for line in event.history:
            self._see(line)

    def on_epoch(self, event: EpochJudged) -> None:
        """One more."""
        self._see(event.values)

    def _see(self, line: dict[str, Any]) -> None:
        self.epoch, value = line["epoch"], line["valid"][self.key]
        if value is not None and (self.value is None or self.sign * value > self.sign * self.value):
            self.value = value


def _sampler(search: Search, what: str) -> Any:
    """TPE for one setting of one trial: each by itself, none when a trial begins."""
    from optuna.samplers import TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{search.seed} {what}".encode()).digest()[:4], "little")
    return TPESampler(n_startup_trials=search.startup, seed=seed, multivariate=False, constant_liar=False)


def _propose(search: Search, study: Any, trial: Any, name: str, space: Range) -> Any:
    """A value by a sampler of its own, seeded by the trial and the setting: a kill in between changes no other."""
    study.sampler = _sampler(search, f"{trial.number} {name}")
    if space.kind == "choice":  # Optuna keeps plain values alone
        place = trial.suggest_categorical(name, list(range(len(space.values))))
        return space.values[place]
    low, high = space.values
    if space.kind == "integer":
        return trial.suggest_int(name, low, high)
    return trial.suggest_float(name, low, high, log=space.kind == "log")
