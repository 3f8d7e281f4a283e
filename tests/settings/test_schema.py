"""`msekit config`: the schema admits what the settings admit, and every setting has words, in the docs too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from msekit.cli import options
from msekit.cli.main import app
from msekit.runs.report import flatten
from msekit.settings.config import RunConfig
from msekit.settings.resolve import read_run_file, validated
from msekit.settings.schema import explain, json_schema, reference, settings

REPOSITORY = Path(__file__).parents[2]


def output(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_reference_in_the_docs_is_the_one_that_is_made():
    made = output("config", "schema", "--format", "markdown")
    assert (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8") == made == reference()


def test_every_setting_is_there_once():
    config = RunConfig(backbone="a", dataset="b", recipe="kit", output=Path("c"))
    keys = [setting.key for setting in settings()]
    assert sorted(keys) == sorted(flatten(config.model_dump(mode="json")))
    assert len(set(keys)) == len(keys)
    assert not [setting.key for setting in settings() if not setting.doc]


def test_the_schema_admits_every_shipped_run_file_and_refuses_what_settings_refuse():
    jsonschema = pytest.importorskip("jsonschema", reason="no validator of JSON schemas is installed")
    schema = json.loads(output("config", "schema"))
    check = jsonschema.Draft202012Validator(schema)
    for file in (REPOSITORY / "configs").glob("*.yaml"):
        assert not list(check.iter_errors(read_run_file(file))), file
    whole = RunConfig(backbone="a", dataset="b", recipe="kit", output=Path("c")).model_dump(mode="json")
    assert not list(check.iter_errors(whole))
    for wrong in ({"optim": {"lr": -1}}, {"optim": {"rate": 1}}, {"recipe": "bset"}, {"tracking": {"trackers": ["x"]}}):
        assert list(check.iter_errors(wrong)), wrong


def test_the_schema_is_one_and_says_what_a_setting_is():
    schema = json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert "required" not in schema, "a run file says only what it changes"
    clip = schema["$defs"]["OptimConfig"]["properties"]["clip_norm"]
    assert clip["description"] == "Largest gradient norm; None leaves gradients as they are."
    assert "mse-states" in schema["$defs"]["AdapterConfig"]["properties"]["name"]["examples"]


def test_a_setting_is_explained_and_a_mistyped_one_is_offered():
    (rate,) = explain("optim.clip_norm")
    assert (rate.kind, rate.default) == ("number > 0 | none", "1")
    shown = output("config", "explain", "loss")
    assert "loss.balance: none | class-balanced | logit-adjusted [none]" in shown
    assert "loss.alone" in shown
    done = CliRunner().invoke(app, ["config", "explain", "optim.lrr"])
    assert "Did you mean optim.lr" in str(done.exception)
    done = CliRunner().invoke(app, ["config", "explain", "epochs"])
    assert "Do you mean optim.epochs?" in str(done.exception)


def test_what_is_shown_is_a_run_file_of_the_same_run(tmp_path: Path):
    arguments = ["config", "show", "--backbone", "tiny-llama", "--dataset", "synthetic-erc"]
    shown = output(*arguments, "--set", "optim.lr=1e-4")
    config = validated(yaml.safe_load(shown))
    assert (config.optim.lr, config.recipe) == (1e-4, "best")
    (tmp_path / "run.yaml").write_text(shown)
    again = output("config", "show", "--config", str(tmp_path / "run.yaml"))
    assert yaml.safe_load(again)["optim"] == yaml.safe_load(shown)["optim"]


def test_keys_and_values_complete():
    assert ("optim.lr=", "") in [(name, "") for name, _ in options.assignments("optim.l")]
    assert [name for name, _ in options.assignments("loss.balance=c")] == ["loss.balance=class-balanced"]
    assert [name for name, _ in options.assignments("evaluation.integrity=")] == [
        "evaluation.integrity=true",
        "evaluation.integrity=false",
    ]
    assert not [name for name, _ in options.assignments("back")], "--backbone has an option of its own"


@pytest.mark.slow
def test_the_shell_is_told_what_completes():
    """As bash asks: the words so far, and the number of the one that is begun."""
    environment = os.environ | {"_MSEKIT_COMPLETE": "complete_bash", "COMP_WORDS": "msekit train --set optim.ep"}
    program = "from msekit.cli.main import app; app(prog_name='msekit')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"COMP_CWORD": "3"}, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == {"optim.eps=", "optim.epochs="}, done.stderr
