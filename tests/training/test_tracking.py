"""A run as others see it: a log of every step, experiment trackers that are told everything once, callbacks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from msekit.errors import CallbackError, MsekitError
from msekit.reporter import Reporter
from msekit.runs.look_first import look_first
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.training.callbacks import Callback, EpochJudged, RunEnded, RunStarted, StateSaved, StepTaken
from msekit.training.loop import train
from msekit.training.parallel_seeds import train_together
from msekit.training.step_log import logged
from msekit.training.trackers import of_epoch

QUIET = Reporter(quiet=True)
SHORT = ("evaluation.bootstrap=0", "evaluation.integrity=false", "optim.epochs=2", "data.limit_train=48")


def plan(folder: Path, *overrides: str, track: tuple[str, ...] | None = None, seeds: tuple[int, ...] = (1,)):
    request = RunRequest("tiny-llama", "synthetic-erc", recipe="kit", output=folder, seeds=seeds, track=track)
    return plan_runs(replace(request, overrides=(*SHORT, *overrides)))[0]


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def broken(config: RunConfig, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Train until the step after `at`, where the process as it were dies: nothing is saved, closed or told any more."""
    from msekit.training.watching import Watch

    step = Watch.step

    def dies(self: Watch, *arguments) -> None:
        step(self, *arguments)
        if self.run.progress.step == at:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "step", dies)
        with pytest.raises(SystemExit):
            train(config, reporter=QUIET)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's events: name → (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def mlflow_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.chdir(folder)

    def read(run: str) -> dict[str, list[tuple[int, float]]]:
        from mlflow import MlflowClient

        client = MlflowClient()
        return {
            name: [(m.step, m.value) for m in client.get_metric_history(run, name)]
            for name in client.get_run(run).data.metrics
        }

    return read


def trackio_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict]:
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", folder / "trackio")

    def read(run: str) -> dict[str, list[tuple[int, float]]]:
        from trackio.sqlite_storage import SQLiteStorage

        assert SQLiteStorage.get_runs("msekit").count(run) == 1
        values: dict[str, list[tuple[int, float]]] = {}
        for line in SQLiteStorage.get_logs("msekit", run):
            for name, value in line.items():
                if name not in ("step", "timestamp"):
                    values.setdefault(name, []).append((line["step"], value))
        return values

    return read


def group_of(name: str, config: RunConfig, run: str) -> str | None:
    """What a tracker files a run under, beside the other seeds; TensorBoard's files lie in the runs' own folders."""
    if name == "mlflow":
        from mlflow import MlflowClient

        return MlflowClient().get_run(run).data.tags["msekit.group"]
    if name == "trackio":
        from trackio.sqlite_storage import SQLiteStorage

        return SQLiteStorage.get_run_config("msekit", run)["_Group"]
    return config.output.parent.name


STORES = {"mlflow": mlflow_store, "trackio": trackio_store}


def test_every_step_stands_in_the_log_once(tmp_path: Path, own_cache):
    (config,) = plan(tmp_path / "run")
    report = train(config, reporter=QUIET)
    steps = lines(config.output, "steps.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in steps] == [1, 1, 1, 2, 2, 2]
    assert all(line["gradient_norm"] > 0 and line["samples_per_s"] > 0 and line["memory_bytes"] > 0 for line in steps)
    epochs = lines(config.output, "metrics.jsonl")
    for epoch in epochs:  # batches of 16
        mean = sum(line["loss"] for line in steps if line["epoch"] == epoch["epoch"]) / 3
        assert mean == pytest.approx(epoch["train_loss"])
    assert max(line["learning_rate"] for line in steps) == pytest.approx(config.optim.lr, rel=0.3)
    assert report["best_epoch"] in (1, 2)


def test_a_half_written_line_is_no_step(tmp_path: Path):
    (tmp_path / "steps.jsonl").write_text('{"step": 1, "epoch": 1}\n{"step": 2, "epoch": 1}\n{"step": 3, "ep')
    assert [line["step"] for line in logged(tmp_path, 5)] == [1, 2]
    assert [line["step"] for line in logged(tmp_path, 1)] == [1]
    assert logged(tmp_path, 0) == []


@pytest.mark.slow
def test_tensorboard_shows_the_log_and_training_knows_nothing_of_it(tmp_path: Path, own_cache, monkeypatch):
    """Bit for bit; a run that died after a saved state, and went on, is one run without repeated steps."""
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    (bare,), (whole,), (died,) = (
        plan(tmp_path / name, track=track)
        for name, track in (("bare", None), ("whole", ("tensorboard",)), ("died", ("tensorboard",)))
    )
    train(bare, reporter=QUIET)
    report = train(whole, reporter=QUIET)
    broken(died, monkeypatch, at=5)
    train(died, resume=True, reporter=QUIET)
    steps = lines(bare.output, "steps.jsonl")
    for config in (whole, died):
        for name in ("adapter.safetensors", "predictions-test.jsonl"):
            assert (config.output / name).read_bytes() == (bare.output / name).read_bytes()
        shown = scalars(config.output)
        assert [line["loss"] for line in lines(config.output, "steps.jsonl")] == [line["loss"] for line in steps]
        for ours, theirs in (("loss", "loss"), ("gradient_norm", "gradient_norm"), ("learning_rate", "learning_rate")):
            assert [step for step, _ in shown[f"train/{theirs}"]] == [1, 2, 3, 4, 5, 6]
            assert [value for _, value in shown[f"train/{theirs}"]] == pytest.approx([line[ours] for line in steps])
        epochs = lines(config.output, "metrics.jsonl")
        for name in ("wf1", "acc"):
            told = [(3 * epoch["epoch"], pytest.approx(epoch["valid"][name])) for epoch in epochs]
            assert shown[f"valid/{name}"] == told
        assert shown["valid/loss"] == [(3 * e["epoch"], pytest.approx(e["valid_loss"])) for e in epochs]
        assert shown["test/acc"] == [(6, pytest.approx(report["metrics"]["acc"]))]
    assert not (bare.output / "tracking.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_local_tracker_has_a_run_that_died_as_one(tmp_path: Path, own_cache, monkeypatch, name: str):
    pytest.importorskip(name, reason=f"the extra `{name}` is not installed")
    read = STORES[name](tmp_path, monkeypatch)
    (config,) = plan(tmp_path / "died", track=(name,))
    broken(config, monkeypatch, at=5)
    train(config, resume=True, reporter=QUIET)
    shown = read(json.loads((config.output / "tracking.json").read_text())[name]["id"])
    steps = lines(config.output, "steps.jsonl")
    assert shown["train/loss"] == [(line["step"], pytest.approx(line["loss"])) for line in steps]
    assert [step for step, _ in shown["train/learning_rate"]] == [1, 2, 3, 4, 5, 6]
    epochs = lines(config.output, "metrics.jsonl")
    assert shown["valid/acc"] == [(3 * epoch["epoch"], pytest.approx(epoch["valid"]["acc"])) for epoch in epochs]
    report = json.loads((config.output / "report.json").read_text())
    assert shown["test/acc"] == [(6, pytest.approx(report["metrics"]["acc"]))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_seeds_that_train_together_are_runs_of_their_own(tmp_path: Path, own_cache, monkeypatch, name: str):
    pytest.importorskip(name, reason=f"the extra `{name}` is not installed")
    read = STORES[name](tmp_path, monkeypatch) if name in STORES else None
    configs = plan(tmp_path / "seeds", track=(name,), seeds=(1, 2))
    list(train_together(configs, reporter=QUIET))
    ids = [json.loads((c.output / "tracking.json").read_text())[name]["id"] for c in configs]
    assert ids[0] != ids[1]
    for config, run in zip(configs, ids, strict=True):
        shown = read(run) if read else scalars(config.output)
        steps = lines(config.output, "steps.jsonl")
        assert shown["train/loss"] == [(line["step"], pytest.approx(line["loss"])) for line in steps]
        assert group_of(name, config, run) == "seeds"


@pytest.mark.slow
def test_a_tracker_that_is_asked_for_later_is_told_the_past(tmp_path: Path, own_cache, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    (config,) = plan(tmp_path / "run")
    broken(config, monkeypatch, at=5)
    (tracked,) = plan(tmp_path / "run", track=("tensorboard",))
    train(tracked, resume=True, reporter=QUIET)
    assert [step for step, _ in scalars(config.output)["train/loss"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_tracker_that_fails_is_left_and_the_run_goes_on(tmp_path: Path, own_cache, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from accelerate.tracking import TensorBoardTracker

    def full(self, values, step=None, **_) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(TensorBoardTracker, "log", full)
    (config,) = plan(tmp_path / "run", track=("tensorboard",))
    train(config, reporter=Reporter())
    assert "the tracker tensorboard failed and is told nothing more" in capsys.readouterr().err
    assert (config.output / "report.json").is_file()


def test_a_tracker_without_its_package_is_refused_before_anything_loads(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("msekit.runs.look_first.find_spec", lambda name: None if name == "comet_ml" else object())
    (config,) = plan(tmp_path / "run", track=("comet",))
    with pytest.raises(MsekitError, match=r"comet needs the package comet_ml.*pip install .msekit\[comet\]."):
        look_first(config, resume=False)


def test_a_tracker_that_shows_one_run_is_refused_for_several_before_anything_is_made(tmp_path: Path, own_cache):
    configs = plan(tmp_path / "seeds", track=("swanlab",), seeds=(1, 2))
    with pytest.raises(MsekitError, match="swanlab shows one run of a process"):
        list(train_together(configs, reporter=QUIET))
    assert not (tmp_path / "seeds").exists()


def test_a_tracker_nobody_knows_is_refused(tmp_path: Path):
    with pytest.raises(MsekitError, match=r"setting tracking.trackers.0"):
        plan(tmp_path / "run", track=("tensorbord",))


def test_metrics_have_names_that_every_tracker_takes():
    """MLflow takes letters, digits, blanks and _-.:/ alone; any other sign, and it is told nothing more of the run."""
    table = {"joy": 0.1, "neutral (calm)": 0.2, "don't know": 0.3, "愤怒": 0.4, "..": 0.5, "happy/excited": None}
    valid = {"wf1": 0.6, "per_class_f1": table, "f1_of:neutral (calm)": 0.7, "signs:uar": 0.8, "corr": float("nan")}
    told = of_epoch({"epoch": 1, "train_loss": 2.0, "valid_loss": 3.0, "valid": valid})
    assert told == {
        "epoch": 1, "train/epoch_loss": 2.0, "valid/loss": 3.0, "valid/wf1": 0.6, "valid/signs:uar": 0.8,
        "valid/per_class_f1/joy": 0.1, "valid/per_class_f1/1": 0.2, "valid/per_class_f1/2": 0.3,
        "valid/per_class_f1/3": 0.4, "valid/per_class_f1/4": 0.5, "valid/f1_of:neutral _calm_": 0.7,
    }  # fmt: skip
    if importlib.util.find_spec("mlflow") is not None:
        from mlflow.utils.validation import _validate_metric_name

        for name in told:
            _validate_metric_name(name)


@pytest.mark.slow
def test_no_tracker_is_imported_unless_it_is_asked_for():
    program = (
        "import sys, msekit.training.loop, msekit.training.trackers; names = {n.split('.')[0] for n in sys.modules}"
    )
    program += "; assert not names & {'tensorboard', 'wandb', 'mlflow', 'trackio', 'comet_ml', 'swanlab', 'matplotlib'}"
    subprocess.run([sys.executable, "-c", program], check=True)


class Notes(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    on_start = on_step = on_epoch = on_save = on_end = lambda self, event: self.told.append(event)


def test_callbacks_are_told_what_the_files_say(tmp_path: Path, own_cache):
    (config,) = plan(tmp_path / "run")
    notes = Notes()
    report = train(config, reporter=QUIET, callbacks=[notes])
    kinds = [type(event) for event in notes.told]
    epoch = [StepTaken, StepTaken, StepTaken, EpochJudged, StateSaved]
    assert kinds == [RunStarted, *epoch, *epoch, RunEnded]
    steps = [event for event in notes.told if isinstance(event, StepTaken)]
    assert [event.loss for event in steps] == [line["loss"] for line in lines(config.output, "steps.jsonl")]
    first, last = notes.told[0], notes.told[-1]
    assert (first.total_steps, first.steps_per_epoch, first.step) == (6, 3, 0)
    assert last.report == report
    judged = [event.values for event in notes.told if isinstance(event, EpochJudged)]
    assert judged == lines(config.output, "metrics.jsonl")


class Raises(Callback):
    """Raises at one hook."""

    def __init__(self, hook: str) -> None:
        def fail(event: object) -> None:
            raise ValueError("my mistake")

        setattr(self, hook, fail)


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_start", "on_step", "on_epoch", "on_save", "on_end"])
def test_a_callback_that_raises_ends_the_run_in_good_order(tmp_path: Path, own_cache, hook: str):
    (bare,), (config,) = plan(tmp_path / "bare"), plan(tmp_path / "run")
    train(bare, reporter=QUIET)
    notes = Notes()
    with pytest.raises(CallbackError, match=rf"Raises\.{hook} raised ValueError: my mistake") as caught:
        train(config, reporter=QUIET, callbacks=[Raises(hook), notes])
    assert isinstance(caught.value.__cause__, ValueError)
    ends = [event for event in notes.told if isinstance(event, RunEnded)]
    assert len(ends) == 1
    assert (ends[0].report is None) == (hook != "on_end")
    train(config, resume=True, reporter=QUIET)
    assert (config.output / "adapter.safetensors").read_bytes() == (bare.output / "adapter.safetensors").read_bytes()
    assert [line["step"] for line in lines(config.output, "steps.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_what_a_run_tells_cannot_change_it(tmp_path: Path, own_cache):
    (config,) = plan(tmp_path / "run")

    class Meddles(Callback):
        def on_epoch(self, event: EpochJudged) -> None:
            event.values["valid"].clear()
            event.values["best"] = None

        def on_end(self, event: RunEnded) -> None:
            assert event.report is not None
            event.report.clear()

    report = train(config, reporter=QUIET, callbacks=[Meddles()])
    assert report["metrics"]
    assert all(line["valid"] for line in lines(config.output, "metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_a_tracker_of_a_service_starts_and_goes_on_offline(tmp_path: Path, own_cache, monkeypatch, name: str):
    """In processes of their own: both keep threads and services alive."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the extra `{name}` is not installed")
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "kit", "--track", name]
    arguments += ["--output", str(tmp_path / "run"), "--limit-train", "16", "--epochs", "2"]
    arguments += ["--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]
    environment = os.environ | {"WANDB_MODE": "offline", "SWANLAB_MODE": "offline", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "msekit", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run" / "seed-1111" / "tracking.json").read_text())[name]
    assert (told["step"], told["epoch"], told["ended"]) == (2, 2, True)
    assert "is told nothing more" not in done.stderr
    assert list((tmp_path / "run" / "seed-1111" / name).glob(f"*{told['id']}*"))
