"""Training and testing with missing modalities and with dialogue context, on the tiny backbone."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.studies.evaluate import evaluate
from msekit.studies.merge_seeds import average_runs
from msekit.training import loop

QUIET = Reporter(quiet=True)
FAST = ["--epochs", "2", "--set", "evaluation.bootstrap=0"]
RATE = "5e-4"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40/12/12 samples in dialogues of four; every fourth lacks vision, every eighth audio."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for split, size in (("train", 40), ("valid", 12), ("test", 12)):
        rows = [
            {
                "id": f"{split}{number}",
                "label": ("calm", "glad")[number % 2],
                "speaker": ("Ann", "Bob")[number % 2],
                "dialogue_id": number // 4,
                "features": {
                    "text": f"I said number {number}",
                    "audio": rng.normal(3 * (number % 2), 1, (4, 6)).astype(np.float32),
                    "audio_len": 0 if number % 8 == 5 else 1 + number % 4,
                    "video": rng.normal(3 * (number % 2), 1, (3, 5)).astype(np.float32),
                    "video_len": 0 if number % 4 == 3 else 2,
                },
            }
            for number in range(size)
        ]
        (folder / f"toy_{split}.pkl").write_bytes(pickle.dumps(rows))
    description = {"name": "toy", "task": "erc", "layout": "erc-pickle", "labels": ["calm", "glad"], "source": "."}
    (folder / "toy.yaml").write_text(yaml.safe_dump(description))
    return folder / "toy.yaml"


def train(described: Path, output: Path, *options: str, rate: str = RATE) -> Path:
    """Train in this process; the seed's folder."""
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", str(described), "--output", str(output), *FAST]
    result = CliRunner().invoke(app, [*arguments, "--set", f"optim.lr={rate}", *options])
    assert result.exit_code == 0, (result.exception, result.output)
    return output / "seed-1111"


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_learned_vectors_train_are_counted_and_come_back(described: Path, tmp_path: Path):
    plain = report(train(described, tmp_path / "zero", "--recipe", "kit"))
    folder = train(described, tmp_path / "learned", "--on-missing", "learned", "--set", "data.modality_dropout=0.3")
    found = report(folder)
    assert (plain["on_missing"], found["on_missing"], found["modality_dropout"]) == ("zero", "learned", 0.3)
    assert found["trainable_parameters"] == plain["trainable_parameters"] + 512
    assert found["incomplete_samples"] == plain["incomplete_samples"] == 4
    assert found["samples"] == 12, "every sample is tested"
    tensors = load_file(folder / "adapter.safetensors")
    assert tensors["absent.audio"].abs().sum() > 0
    assert json.loads((folder / "adapter.json").read_text())["on_missing"] == "learned"
    assert evaluate(folder, reporter=QUIET)["metrics"] == found["metrics"]


@pytest.mark.slow
def test_dropping_trains_on_the_complete_and_tests_on_all(described: Path, tmp_path: Path):
    found = report(train(described, tmp_path / "drop", "--on-missing", "drop"))
    assert found["dropped_train"] == 15
    assert found["samples"] == 12
    assert found["incomplete_samples"] == 4
    first = found["train_samples_per_s"] * found["train_seconds"]
    assert first == pytest.approx(2 * 25), "samples trained on in two epochs"


def test_incomplete_samples_are_refused_before_anything_is_written(described: Path, tmp_path: Path):
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", str(described), "--on-missing", "error"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "run")])
    assert isinstance(result.exception, MsekitError)
    assert "sample 'train5' has no audio, nor have 4 others (train row 5)" in str(result.exception)
    assert not (tmp_path / "run").exists()
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "run"), "--on-missing", "ignore"])
    assert "on_missing" in str(result.exception)


@pytest.mark.slow
def test_testing_without_a_modality(described: Path, tmp_path: Path):
    """Labels are told by the audio and the vision alone, and by whether a text's number is even, which an LLM knows."""
    options = ["--epochs", "12", "--recipe", "kit"]
    folder = train(described, tmp_path / "run", *options, rate="5e-3")
    runner = CliRunner()
    result = runner.invoke(app, ["evaluate", str(folder), "--without", "audio,vision", "--format", "json"])
    withheld = json.loads(result.stdout)
    assert withheld["tested_without"] == ["audio", "vision"]
    full = evaluate(folder, reporter=QUIET)
    assert full["tested_without"] == []
    assert full["metrics"]["acc"] > 0.9
    assert withheld["metrics"]["acc"] < 0.7
    shown = runner.invoke(app, ["evaluate", str(folder), "--without", "audio"])
    assert "without audio" in " ".join(shown.stdout.split())
    refusal = runner.invoke(app, ["evaluate", str(folder), "--without", "smell"]).exception
    assert "no 'smell' to withhold" in str(refusal)
    deaf = train(described, tmp_path / "deaf", "--set", "data.without=[audio]")
    refusal = runner.invoke(app, ["evaluate", str(deaf), "--without", "audio"]).exception
    assert "The run has vision" in str(refusal)


@pytest.mark.slow
def test_an_interrupted_run_with_dropout_learned_vectors_and_context_ends_the_same(described: Path, tmp_path: Path):
    options = ["data.on_missing=learned", "data.modality_dropout=0.4", "data.context=2", "save_minutes=1e-6"]
    options += ["evaluation.bootstrap=0", "optim.epochs=3"]
    request = RunRequest(backbone="tiny-llama", dataset=str(described), overrides=tuple(options))
    (whole,), _ = plan_runs(replace(request, output=tmp_path / "whole"))
    (broken,), _ = plan_runs(replace(request, output=tmp_path / "broken"))
    loop.train(whole, reporter=QUIET)
    step, steps = loop.Run.step, 0

    def fails(run: loop.Run, *arguments: Any) -> tuple[float, bool, bool]:
        nonlocal steps
        steps += 1
        if steps == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return step(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "step", fails)
        with pytest.raises(KeyboardInterrupt):
            loop.train(broken, reporter=QUIET)
    loop.train(broken, resume=True, reporter=QUIET)
    for name in ("adapter.safetensors", "predictions-test.jsonl"):
        assert (whole.output / name).read_bytes() == (broken.output / name).read_bytes()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_agree_on_who_lacks_what(described: Path, tmp_path: Path):
    """Whole shares without a modality, dropout, learned vectors: DDP misses no gradient, the adapter is the same."""
    options = ["--on-missing", "learned", "--set", "data.modality_dropout=0.4", "--context", "1"]
    options += ["--set", "optim.batch_size=4"]
    one = train(described, tmp_path / "one", *options)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "launch/cpu2.yaml", "-m", "msekit"]
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", str(described), "--output", str(tmp_path / "two")]
    done = subprocess.run(
        [*launcher, *arguments, *FAST, "--set", f"optim.lr={RATE}", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (load_file(path / "adapter.safetensors") for path in (one, tmp_path / "two" / "seed-1111"))
    assert max(float((first[key] - second[key]).abs().max()) for key in first) <= 1e-5


@pytest.mark.slow
def test_context_is_trained_reported_and_restored(described: Path, tmp_path: Path):
    folder = train(described, tmp_path / "run", "--context", "2")
    found = report(folder)
    assert found["context"] == 2
    assert json.loads((folder / "adapter.json").read_text())["context"] == 2
    assert evaluate(folder, reporter=QUIET)["metrics"] == found["metrics"]
    # adapter.json decides, not the run's configuration
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["context"] = 0
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    again = evaluate(folder, reporter=QUIET)
    assert (again["context"], again["metrics"]) == (2, found["metrics"])


@pytest.mark.slow
def test_runs_with_context_are_averaged_with_it_and_not_with_others(described: Path, tmp_path: Path):
    train(described, tmp_path / "run", "--context", "2", "--seeds", "1,2")
    one, two = (tmp_path / "run" / f"seed-{seed}" for seed in (1, 2))
    averaged = average_runs([one, two], reporter=QUIET)
    assert [run["metrics"] for run in averaged["runs"]] == [report(folder)["metrics"] for folder in (one, two)]
    description = json.loads((two / "adapter.json").read_text())
    for key, other in (("context", 1), ("on_missing", "error")):
        (two / "adapter.json").write_text(json.dumps(description | {key: other}))
        with pytest.raises(MsekitError, match=f"the runs differ in {key}"):
            average_runs([one, two], reporter=QUIET)


def test_dry_run_shows_the_context(described: Path, tmp_path: Path):
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", str(described), "--output", str(tmp_path / "none")]
    shown = CliRunner().invoke(app, [*arguments, "--context", "2", "--dry-run"])
    assert "context of" in shown.stderr
    assert shown.stdout.count("│ context") > 3
    assert "│ context" not in CliRunner().invoke(app, [*arguments, "--dry-run"]).stdout


def test_context_without_dialogues_is_refused(tmp_path: Path):
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--context", "3"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "run")])
    assert "data set 'synthetic-erc' has no dialogue ids, which --context needs" in str(result.exception)
    assert not (tmp_path / "run").exists()
