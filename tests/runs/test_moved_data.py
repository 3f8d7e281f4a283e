"""A trained run whose data lies elsewhere now: told before torch loads, with the option that then works."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.example import write_example
from msekit.errors import MsekitError

GOLDEN = Path(__file__).parents[1] / "golden" / "run" / "finished" / "seed-1111"
COMMANDS = (
    ["evaluate"],
    ["evaluate", "--calibrate"],
    ["evaluate", "--robustness"],
    ["sensitivity"],
    ["average"],
)


def run_of(folder: Path, **settings: object) -> Path:
    """A finished run's folder with these settings in its config.yaml."""
    shutil.copytree(GOLDEN, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | settings
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, MsekitError), (done.exception, done.output)
    return str(done.exception)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_told_before_torch(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith(("msekit.studies", "msekit.training"))]:
        monkeypatch.delitem(sys.modules, name)
    files = run_of(tmp_path / "files", dataset="mosei", source=str(tmp_path / "gone" / "mosei.pkl"))
    said = refused(*command, files)
    assert "the run's data is not where it was" in said
    assert "Say where it lies now: --source PATH." in said
    described = run_of(tmp_path / "described", dataset=str(tmp_path / "gone" / "moods.yaml"))
    assert "--source the folder that holds moods.yaml now." in refused(*command, described)
    (tmp_path / "other").mkdir()
    said = refused(*command, described, "--source", tmp_path / "other")
    assert "there is no moods.yaml" in said
    assert "not where it was" not in refused(*command, files, "--source", tmp_path / "nor-here")


def test_another_set_that_no_option_describes(tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "samples.jsonl").write_text('{"text": "a", "label": "joy", "split": "test"}\n')
    said = refused("evaluate", run_of(tmp_path / "run"), "--dataset", "own", "--source", tmp_path / "own")
    assert "Describe it in a YAML: --dataset FILE.yaml" in said
    assert "--labels" not in said


@pytest.mark.slow
def test_the_option_that_is_named_works(tmp_path: Path, tiny: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    described = write_example("moods", tmp_path / "moods")
    small = ["--recipe", "kit", "--limit-train", "16", "--epochs", "1", "--seeds", "1,2"]
    small += ["--set", "adapter.hidden=8", "--set", "evaluation.bootstrap=0"]
    runner = CliRunner()
    train = ["train", "--backbone", "tiny-llama", "--dataset", str(described), "--output", "runs", *small]
    assert runner.invoke(app, train).exit_code == 0
    (tmp_path / "moods").rename(tmp_path / "elsewhere")
    for command in COMMANDS:
        run = "runs" if command == ["average"] else "runs/seed-1"
        offered = re.search(
            r"Say where it lies now: (--source) the folder that holds moods.yaml", refused(*command, run)
        )
        assert offered
        done = runner.invoke(app, [*command, run, *shlex.split(offered[1]), "elsewhere"])
        assert done.exit_code == 0, (command, done.exception)
