"""What can be told in a moment is told before torch loads, by every command; a run's folder says how to go on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import HubServer
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
TRAIN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "kit"]
SHORT = [*TRAIN, "--limit-train", "64", "--epochs", "3", "--set", "evaluation.bootstrap=20"]
SHORT += [word for size in ("hidden=8", "audio_hidden=4", "vision_hidden=4") for word in ("--set", f"adapter.{size}")]


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of torch fails, also in a process that has it already; so do our modules that need it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    ours = ("msekit.training", "msekit.studies", "msekit.inference", "msekit.sharing", "msekit.serving", "msekit.model")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, MsekitError), (done.exception, done.output)
    return str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "no/such/run"], "no trained run"),
        (["evaluate", "no/such/run", "--robustness"], "no trained run"),
        (["verify-backbone", "no/such/run"], "no trained run"),
        (["sensitivity", "no/such/run"], "no trained run"),
        (["export", "no/such/run", "out"], "no trained run"),
        (["predict", "no/such/run", "--text", "hi"], "no such run"),
        (["serve", "no/such/run"], "no such run"),
        (
            ["predict", GOLDEN / "finished/seed-1111", "--text", "hi", "--audio", "no.npy"],
            "no such audio file (no.npy)",
        ),
        (["predict", GOLDEN / "finished/seed-1111", "--text", "hi", "--vision", "no.npy"], "no such vision file"),
        ([*TRAIN, "--dataset", "mosei", "--source", "/nowhere"], "/nowhere"),
        ([*TRAIN, "--backbone", "tiny-lama", "--output", "/tmp/no-such-output"], "Did you mean tiny-llama"),
        ([*TRAIN, "--output", GOLDEN / "finished"], "already holds a finished run"),
        ([*SHORT, "--output", GOLDEN / "finished", "--resume", "--set", "optim.lr=0.5"], "optim.lr: "),
    ],
)
def test_before_torch(without_torch: None, arguments: list[object], expected: str):
    assert expected in refused(*arguments)


def test_a_model_that_no_hub_has(without_torch: None, hub: HubServer):
    hub.add("someone/gguf", {"model-q4.gguf": b"GGUF"})
    train = ["train", "--dataset", "synthetic-erc", "--backbone"]
    assert "someone/nothing" in refused(*train, "someone/nothing")
    assert "holds GGUF files" in refused(*train, "someone/gguf")
    assert not hub.downloads("model-q4.gguf")


def test_finished_runs_are_reused_before_torch(without_torch: None, tmp_path: Path):
    run = Path(shutil.copytree(GOLDEN / "finished" / "seed-1111", tmp_path / "run" / "seed-1111"))
    done = CliRunner().invoke(app, [*SHORT, "--output", str(run.parent), "--resume"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "finished and reused" in done.stderr


def test_runs_one_level_below_are_named(tmp_path: Path):
    for name in ("mosi", "meld"):
        shutil.copytree(GOLDEN / "finished", tmp_path / name)
    for command in ("evaluate", "report"):
        assert "Runs below it: meld, mosi." in refused(command, tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--epochs", "4"], "other settings (optim.epochs: 3 → 4): choose another --output."),
        (["--set", "optim.lr=0.5", "--epochs", "4"], "optim.epochs: 3 → 4"),
        ([], "Continue it with --resume, or choose another --output."),
    ],
)
def test_the_advice_of_a_taken_folder_is_not_refused_next(tmp_path: Path, more: list[str], said: str):
    shutil.copytree(GOLDEN / "finished" / "seed-1111", tmp_path / "run" / "seed-1111")
    command = [*SHORT, "--output", str(tmp_path / "run"), *more]
    message = refused(*command)
    assert said in message
    again = CliRunner().invoke(app, [*command, "--resume"])
    assert (again.exception is None) == ("--resume" in message)
    if more:
        assert (
            f"finished run with other settings: {'optim.lr' if 'optim.lr=0.5' in more else 'optim.epochs: 3 → 4'}"
            in str(again.exception)
        )


def test_a_folder_with_other_files_offers_no_resume(tmp_path: Path):
    (tmp_path / "seed-1111").mkdir()
    (tmp_path / "seed-1111" / "notes.txt").write_text("mine")
    assert refused(*TRAIN, "--output", tmp_path).endswith("Choose another --output.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--epochs", "4"], "the stopped run has other settings: optim.epochs: 3 → 4"),
        (["--set", "optim.lr=1e-4"], "optim.lr: "),
        (["--set", "model.dtype=bf16"], "model.dtype: fp32 → bf16"),
        (["--ablate", "no-audio", "--layout", "prompt-first"], "layout: paper → prompt-first, adapter.ablate: none → "),
    ],
)
def test_a_resume_that_differs_names_what_differs(tmp_path: Path, more: list[str], said: str):
    shutil.copytree(GOLDEN / "stopped" / "seed-1111", tmp_path / "run" / "seed-1111")
    assert said in refused(*SHORT, "--output", tmp_path / "run", "--resume", *more)


@pytest.mark.slow
def test_other_data_is_named_where_settings_are_alike(tmp_path: Path):
    run = Path(shutil.copytree(GOLDEN / "stopped" / "seed-1111", tmp_path / "run" / "seed-1111"))
    text = (run / "adapter.json").read_text()
    import json

    described = json.loads(text) | {"data_fingerprint": "0" * 64}
    (run / "adapter.json").write_text(json.dumps(described))
    assert "not as when the run was stopped: data" in refused(*SHORT, "--output", run.parent, "--resume")
    assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["epochs"] == 3
