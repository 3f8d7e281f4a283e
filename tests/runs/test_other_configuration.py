"""The same weights under another configuration or tokenizer are another LLM: every command that uses a run says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import msekit
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.fingerprint import fingerprint_checkpoint, fingerprint_configuration
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.runs.description import read_description

SAID = "configuration or tokenizer is not the one that was trained with"
SHORT = ["train", "--dataset", "synthetic-erc", "--limit-train", "8", "--epochs", "1", "--recipe", "kit"]
SHORT += ["--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document))

    return apply


def swapped(tokenizer: dict[str, Any]) -> None:
    """Two words take each other's number."""
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


CHANGES = {
    "rope": in_json("config.json", lambda config: config.update(rope_theta=3.0, rope_parameters=None)),
    "norm": in_json("config.json", lambda config: config.update(rms_norm_eps=0.5)),
    "activation": in_json("config.json", lambda config: config.update(hidden_act="relu")),
    "words": in_json("tokenizer.json", swapped),
    "special": in_json("tokenizer_config.json", lambda config: config.update(bos_token="a")),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_folder(), tmp_path_factory.mktemp("llm") / "llm"))


@pytest.fixture(scope="module")
def run(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    done = CliRunner().invoke(app, [*SHORT, "--backbone", str(backbone), "--output", str(output)])
    assert done.exit_code == 0, done.output
    return output / "seed-1111"


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_answers_is_in_the_fingerprint(backbone: Path, tmp_path: Path, change: str):
    other = Path(shutil.copytree(backbone, tmp_path / "llm"))
    assert fingerprint_configuration(other) == fingerprint_configuration(backbone)
    CHANGES[change](other)
    assert fingerprint_configuration(other) != fingerprint_configuration(backbone)
    assert fingerprint_checkpoint(other) == fingerprint_checkpoint(backbone)


def test_what_decides_nothing_is_not(backbone: Path, tmp_path: Path):
    other = Path(shutil.copytree(backbone, tmp_path / "llm"))
    news = {"transformers_version": "9.9", "dtype": "float16", "_name_or_path": "elsewhere"}
    in_json("config.json", lambda config: config.update(news))(other)
    in_json("tokenizer_config.json", lambda config: config.update(chat_template="{{ x }}"))(other)
    (other / "README.md").write_text("other words")
    assert fingerprint_configuration(other) == fingerprint_configuration(backbone)


@pytest.mark.slow
def test_every_command_notices(backbone: Path, run: Path, tmp_path: Path):
    assert msekit.load_run(run).notices == ()
    whole = (backbone / "config.json").read_text()
    try:
        CHANGES["norm"](backbone)
        assert [SAID in notice for notice in msekit.load_run(run).notices] == [True]
        for command in (["predict", str(run), "--text", "hi"], ["evaluate", str(run)]):
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 0, done.output
            assert SAID in done.stderr
        done = CliRunner().invoke(app, ["verify-backbone", str(run)])
        assert done.exit_code == 1
        assert "NOT what it was" in done.stdout
        stopped = Path(shutil.copytree(run, tmp_path / "run" / "seed-1111"))
        (stopped / "report.json").unlink()
        resumed = [*SHORT, "--backbone", str(backbone), "--output", str(stopped.parent), "--resume"]
        done = CliRunner().invoke(app, resumed)
        assert isinstance(done.exception, MsekitError), done.output
    finally:
        (backbone / "config.json").write_text(whole)


@pytest.mark.slow
def test_a_run_of_an_older_msekit_is_used_with_a_line(run: Path, tmp_path: Path):
    older = Path(shutil.copytree(run, tmp_path / "older"))
    in_json("adapter.json", lambda description: description["backbone"].pop("configuration"))(older)
    assert read_description(older).backbone.configuration is None
    done = CliRunner().invoke(app, ["predict", str(older), "--text", "hi"])
    assert done.exit_code == 0, done.output
    assert "an older msekit made it" in done.stderr
    done = CliRunner().invoke(app, ["verify-backbone", str(older)])
    assert done.exit_code == 0, done.output
    assert "the run does not say" in done.stdout
