"""Runs that share a backbone pass: each one's trajectory, folder and patience are those of its run alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from msekit.errors import MsekitError, StoppedError, UnfinishedRunError
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import RunRequest, parse_seeds, plan_runs
from msekit.studies.evaluate import evaluate
from msekit.training import parallel_seeds
from msekit.training.loop import Run, train
from msekit.training.parallel_seeds import Together, collate, start, train_together
from msekit.training.step import Step

QUIET = Reporter(quiet=True)


def plan(
    folder: Path, *overrides: str, dataset: str = "synthetic-erc", seeds: str = "1,2,3", layout: str = "paper"
) -> list[RunConfig]:
    short = (
        "evaluation.batch_size=80",
        "evaluation.bootstrap=0",
        "data.limit_train=320",
        "optim.epochs=1",
        "optim.lr=5e-4",
        *overrides,
    )
    request = RunRequest("tiny-llama", dataset, output=folder, layout=layout, seeds=parse_seeds(seeds), overrides=short)
    return plan_runs(request)[0]


def difference(one: Path, other: Path) -> float:
    mine, theirs = (load_file(folder / "adapter.safetensors") for folder in (one, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def states(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for n, t in load_file(folder / "state" / "state.safetensors").items() if n.startswith("adapter.")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "layout", "overrides"),
    [
        ("synthetic-erc", "paper", ("data.limit_train=96", "optim.accumulation=2", "optim.ema=0.5")),
        ("synthetic-msa", "prompt-first", ("data.limit_train=96", "loss.expected=1")),
    ],
)
def test_every_seed_ends_as_it_does_alone(
    tmp_path: Path, own_cache, dataset: str, layout: str, overrides: tuple[str, ...]
):
    """20 steps of 16 samples."""
    joined, alone = (plan(tmp_path / name, *overrides, dataset=dataset, layout=layout) for name in ("joined", "alone"))
    reports = list(train_together(joined, reporter=QUIET))
    assert [report["seed"] for report in reports] == [1, 2, 3]
    for mine, theirs, report in zip(joined, alone, reports, strict=True):
        other = train(theirs, reporter=QUIET)
        ours, alone_state = states(mine.output), states(theirs.output)
        assert max(float((ours[name] - alone_state[name]).abs().max()) for name in ours) <= 1e-5
        assert report["best_epoch"] == other["best_epoch"]
        shared = {"f1", "wf1"} & report["metrics"].keys()
        assert all(report["metrics"][name] == pytest.approx(other["metrics"][name], abs=1e-2) for name in shared)
        names = {path.name for path in mine.output.iterdir()}
        assert names == {path.name for path in theirs.output.iterdir()}
        assert report["layout"] == layout
    assert difference(joined[0].output, joined[1].output) > 1e-3
    again = evaluate(joined[1].output, reporter=QUIET)["metrics"]  # in batches of another size
    assert again.keys() == reports[1]["metrics"].keys()
    numbers = {name for name, value in again.items() if isinstance(value, float)}
    assert all(again[name] == pytest.approx(reports[1]["metrics"][name], abs=1e-5) for name in numbers)


@pytest.mark.slow
def test_stopped_and_resumed_ends_as_undisturbed(tmp_path: Path, own_cache, monkeypatch):
    """Stopped between the saves of two seeds, so that they stand at different steps when they go on."""
    epochs = ("data.limit_train=16", "optim.batch_size=4", "optim.epochs=3")
    whole = plan(tmp_path / "whole", *epochs)
    list(train_together(whole, reporter=QUIET))
    parts = plan(tmp_path / "parts", *epochs)
    saves = []
    save = Run.save

    def interrupted(self: Run) -> None:
        saves.append(self.config.seed)
        if len(saves) == 5:
            raise KeyboardInterrupt
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(train_together(parts, reporter=QUIET))
    reports = list(train_together(parts, resume=True, reporter=QUIET))
    assert len(reports) == 3
    for mine, theirs in zip(parts, whole, strict=True):
        assert difference(mine.output, theirs.output) <= 1e-5
    before = [(config.output / "report.json").stat().st_mtime_ns for config in parts]
    assert [r["metrics"] for r in train_together(parts, resume=True, reporter=QUIET)] == [r["metrics"] for r in reports]
    assert [(config.output / "report.json").stat().st_mtime_ns for config in parts] == before


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["between two seeds' steps", "validation", "test"])
def test_a_signal_is_heeded_at_once_and_costs_nothing(tmp_path: Path, own_cache, monkeypatch, moment: str):
    settings = (
        "data.limit_train=16",
        "optim.batch_size=4",
        "optim.epochs=1",
        "optim.ema=0.5",
        "evaluation.batch_size=40",
    )
    whole = plan(tmp_path / "whole", *settings, seeds="1,2")
    list(train_together(whole, reporter=QUIET))
    parts = plan(tmp_path / "parts", *settings, seeds="1,2")
    checked, score = Run.checked, parallel_seeds.score_together
    updates, rounds = [], []

    def stepping(self: Run, step: Step):
        outcome = checked(self, step)
        updates.append(self.config.seed)
        if moment.startswith("between") and len(updates) == 5:  # the first seed's third step
            os.kill(os.getpid(), signal.SIGTERM)
        return outcome

    def scoring(models, collator, size, accelerator, reporter, title, between):
        def noted() -> None:
            rounds.append(title.rpartition(", ")[2])
            if rounds[-1] == moment and rounds.count(moment) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            between()

        return score(models, collator, size, accelerator, reporter, title, noted)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "checked", stepping)
        patch.setattr(parallel_seeds, "score_together", scoring)
        with pytest.raises(StoppedError):
            list(train_together(parts, reporter=QUIET))
    assert rounds.count(moment) == (0 if moment.startswith("between") else 2)
    taken = updates.copy()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "checked", stepping)
        list(train_together(parts, resume=True, reporter=QUIET))
    assert len(taken) == (6 if moment.startswith("between") else 8)
    assert len(updates) == 8, "no step was taken twice"
    for mine, theirs in zip(parts, whole, strict=True):
        assert difference(mine.output, theirs.output) <= 1e-6


@pytest.mark.slow
def test_patience_is_each_seeds_own(tmp_path: Path, own_cache):
    settings = ("data.limit_train=16", "optim.batch_size=4", "optim.patience=1", "optim.epochs=4", "optim.lr=2e-2")
    settings += ("adapter.name=mse",)  # no opinion, which would still get better in every seed
    joined, alone = (plan(tmp_path / name, *settings, seeds="1,2,4") for name in ("joined", "alone"))
    epochs = [report["epochs"] for report in train_together(joined, reporter=QUIET)]
    assert len(set(epochs)) > 1
    assert epochs == [train(config, reporter=QUIET)["epochs"] for config in alone]


def test_learning_rates_train_together(tmp_path: Path, own_cache):
    slow, quick = (plan(tmp_path / rate, f"optim.lr={rate}", seeds="1")[0] for rate in ("1e-5", "1e-2"))
    runs = start([slow, quick], False, QUIET).runs
    first = [parameter.detach().clone() for parameter in runs[0].adapter.parameters()]
    batches, parallel_seeds = (list(range(8)), list(range(8))), Together(runs, runs[0].accelerator, QUIET)
    for _ in range(2):  # the rate rises from zero
        parallel_seeds.step(runs, collate(runs, batches), [8, 8])
    now = [[parameter.detach() for parameter in run.adapter.parameters()] for run in runs]
    moved = [max(float((a - b).abs().max()) for a, b in zip(first, after, strict=True)) for after in now]
    assert 0 < moved[0] < moved[1] / 100


@pytest.mark.slow
def test_runs_of_one_seed_leave_their_own_reports(tmp_path: Path, own_cache):
    short = ("data.limit_train=8", "evaluation.batch_size=160")
    runs = [plan(tmp_path / rate, f"optim.lr={rate}", *short, seeds="1")[0] for rate in ("1e-5", "1e-2")]
    first, second = train_together(runs, reporter=QUIET)
    assert first["confidence"] == second["confidence"] == {}
    assert difference(runs[0].output, runs[1].output) > 1e-3
    written = [json.loads((run.output / "report.json").read_text())["metrics"] for run in runs]
    assert written == [first["metrics"], second["metrics"]]


@pytest.mark.slow
def test_a_seed_whose_loss_is_not_finite_leaves_the_others(tmp_path: Path, own_cache, monkeypatch):
    runs = plan(tmp_path / "runs", "data.limit_train=8", "optim.epochs=2")
    made = parallel_seeds.fresh_adapter

    def broken(config, backbone, spec, widths):
        adapter = made(config, backbone, spec, widths)
        if config.seed == 2:
            with torch.no_grad():
                adapter.projector.expand.bias.fill_(float("inf"))
        return adapter

    monkeypatch.setattr(parallel_seeds, "fresh_adapter", broken)
    training = train_together(runs, reporter=QUIET)
    reports = [next(training), next(training)]
    with pytest.raises(UnfinishedRunError, match="seed-2"):
        next(training)
    assert [report["seed"] for report in reports] == [1, 3]
    assert [report["epochs"] for report in reports] == [2, 2]


def test_runs_that_differ_otherwise_are_refused(tmp_path: Path):
    one, other = plan(tmp_path, seeds="1")[0], plan(tmp_path, "data.noise=0.5", seeds="2")[0]
    with pytest.raises(MsekitError, match="seed and optimiser settings alone"):
        list(train_together([one, other], reporter=QUIET))


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path, own_cache):
    from typer.testing import CliRunner

    from msekit.cli.main import app

    arguments = "train --backbone tiny-llama --dataset synthetic-erc --limit-train 32 --epochs 1 --layout prompt-first"
    options = [
        "--seeds",
        "1,2",
        "--parallel-seeds",
        "--output",
        str(tmp_path / "runs"),
        "--set",
        "evaluation.bootstrap=0",
    ]
    done = CliRunner().invoke(app, [*arguments.split(), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "runs" / "summary.json").read_text())["seeds"] == [1, 2]
    assert json.loads((tmp_path / "runs" / "seed-2" / "adapter.json").read_text())["layout"] == "prompt-first"
    assert evaluate(tmp_path / "runs" / "seed-2", reporter=QUIET)["layout"] == "prompt-first"
