"""A run that has ended goes on where it is asked for more epochs or patience; what it gave before is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError

TRAIN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "kit", "--limit-train", "32"]
SHORT = [*TRAIN, "--set", "evaluation.bootstrap=20"]
SHORT += [word for size in ("hidden=8", "audio_hidden=4", "vision_hidden=4") for word in ("--set", f"adapter.{size}")]
STILL = ["--set", "optim.lr=1e-9", "--epochs", "6"]
"""An adapter that does not move never gets better: patience runs out."""

pytestmark = pytest.mark.slow


def command(output: Path, *more: str) -> str:
    done = CliRunner().invoke(app, [*SHORT, "--output", str(output), *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(output: Path, *more: str) -> str:
    done = CliRunner().invoke(app, [*SHORT, "--output", str(output), *more])
    assert isinstance(done.exception, MsekitError), (done.exception, done.output)
    return str(done.exception)


def report(output: Path) -> dict[str, Any]:
    return json.loads((output / "seed-1111" / "report.json").read_text())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    output = tmp_path_factory.mktemp("ended") / "run"
    command(output, "--epochs", "1")
    return output


@pytest.fixture(scope="module")
def continued(ended: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same, given two more, and what was said."""
    output = Path(shutil.copytree(ended, tmp_path_factory.mktemp("continued") / "run"))
    return output, command(output, "--epochs", "3", "--resume")


def test_a_finished_run_goes_on(ended: Path, continued: tuple[Path, str]):
    output, said = continued
    assert "seed 1111, optim.epochs: 1 → 3: goes on after epoch 1, at a learning rate of" in said
    assert (report(output)["epochs"], report(output)["continued"]) == (3, ["after epoch 1"])
    assert len((output / "seed-1111" / "metrics.jsonl").read_text().splitlines()) == 3
    earlier = output / "seed-1111" / "after-1-epochs"
    for name in ("report.json", "predictions-test.jsonl"):
        assert (earlier / name).read_bytes() == (ended / "seed-1111" / name).read_bytes()
    assert "finished and reused" in command(output, "--epochs", "3", "--resume")
    assert "continued after epoch 1" in CliRunner().invoke(app, ["report", str(output)]).output


def test_advice_is_not_refused_next(ended: Path, tmp_path: Path):
    output = Path(shutil.copytree(ended, tmp_path / "run"))
    assert "Go on with it (optim.epochs: 1 → 2) with --resume" in refused(output, "--epochs", "2")
    other = ["--epochs", "2", "--set", "optim.clip_norm=2"]
    for more in (other, [*other, "--resume"], ["--epochs", "1", "--layout", "prompt-first"]):
        message = refused(output, *more)
        assert "--resume" not in message.replace("--resume,", "")
        assert "hoose another --output." in message
    (output / "seed-1111" / "state" / "state.safetensors").unlink()
    assert "choose another" in refused(output, "--epochs", "2")
    assert "the state that it could go on from is gone" in refused(output, "--epochs", "2", "--resume")


def test_fewer_epochs_are_refused(continued: tuple[Path, str]):
    assert "optim.epochs: 3 → 2" in refused(continued[0], "--epochs", "2", "--resume")


@pytest.mark.parametrize("place", ["msekit.training.resume.set_aside", "msekit.training.loop.write_config"])
def test_a_kill_in_between_changes_nothing(
    ended: Path, continued: tuple[Path, str], tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    output = Path(shutil.copytree(ended, tmp_path / "run"))
    command(output, "--epochs", "1", "--resume")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, killed)
        assert CliRunner().invoke(app, [*SHORT, "--output", str(output), "--epochs", "3", "--resume"]).exit_code == 130
    command(output, "--epochs", "3", "--resume")
    for name in ("adapter.safetensors", "metrics.jsonl"):
        if name == "metrics.jsonl":
            lines = [
                [json.loads(line)["train_loss"] for line in (folder / "seed-1111" / name).read_text().splitlines()]
                for folder in (output, continued[0])
            ]
            assert lines[0] == lines[1]
        else:
            assert (output / "seed-1111" / name).read_bytes() == (continued[0] / "seed-1111" / name).read_bytes()
    assert report(output)["continued"] == ["after epoch 1"]


def test_more_patience_is_as_from_the_beginning(tmp_path: Path):
    command(tmp_path / "all", *STILL, "--set", "optim.patience=3")
    command(tmp_path / "some", *STILL, "--set", "optim.patience=1")
    assert report(tmp_path / "some")["epochs"] == 2
    message = refused(tmp_path / "some", "--epochs", "9", *STILL[:2], "--set", "optim.patience=1", "--resume")
    assert "none was better than epoch 1" in message
    assert "Add --set optim.patience=2" in message
    said = command(tmp_path / "some", *STILL, "--set", "optim.patience=3", "--resume")
    assert "optim.patience: 1 → 3: goes on after epoch 2, as it would have" in said
    assert report(tmp_path / "some")["epochs"] == report(tmp_path / "all")["epochs"] == 4
    assert "continued" not in report(tmp_path / "some")
    for name in ("adapter.safetensors",):
        files = [tmp_path / folder / "seed-1111" / name for folder in ("all", "some")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_seeds_together_go_on_too(tmp_path: Path):
    both = ["--seeds", "1111,2222", "--parallel-seeds"]
    command(tmp_path, *both, "--epochs", "1")
    command(tmp_path, *both, "--epochs", "2", "--resume")
    assert (report(tmp_path)["epochs"], report(tmp_path)["continued"]) == (2, ["after epoch 1"])
