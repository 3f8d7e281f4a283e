"""What users read is ours: no words of pydantic, PyYAML, Python or transformers; and a way out that works."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.load import load_backbone
from msekit.cli.main import app
from msekit.data.catalogue import resolve_dataset
from msekit.errors import MsekitError
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.words import reason

THEIRS = re.compile(
    r"Input should|Field required|validation error|Errno|Error\(|missing keys|Traceback|<unicode string>|codec"
)
PLAN = ["plan", "--backbone", "tiny-llama", "--dataset", "synthetic-erc"]
TABLE = "text,label,split\na,joy,train\nb,sad,valid\nc,joy,test\n"


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, MsekitError), (done.exception, done.output)
    message = str(done.exception)
    assert not THEIRS.search(message), message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--epochs", "1.5"], "'--epochs': it is to be a whole number"),
        (["plan", "--validation", "abc"], "'--validation': it is to be a number"),
        (["plan", "--format", "xml"], "'--format': 'xml' is not one of 'table', 'json'"),
        (["serve", "run", "--port", "x"], "'--port': it is to be a whole number"),
    ],
)
def test_values_of_options(arguments: list[str], said: str):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert not re.search(r"Input should|Value error", done.output)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim.lr=x", "setting optim.lr is to be a number, not 'x'"),
        ("optim.epochs=0", "setting optim.epochs is to be at least 1, not 0"),
        ("optim.epochs=2.5", "setting optim.epochs is to be a whole number, not 2.5"),
        ("optim.warmup=2", "setting optim.warmup is to be at most 1, not 2"),
        ("data.without=speech", "setting data.without is to be a list, not 'speech'"),
        ("data.without=[speech]", "setting data.without.0 is to be 'audio' or 'vision', not 'speech'"),
        ("data.standardise=perhaps", "setting data.standardise is to be true or false, not 'perhaps'"),
        ("data.dtype=f", "setting data.dtype is to be 'float32' or 'float16', not 'f'"),
        ("model=3", "setting model is to be a mapping of keys, not 3"),
        ("model.passes=3", "setting model.passes: neither auto, plain nor a list"),
        ("model.checkpointing=maybe", "setting model.checkpointing is to be 'auto', 'on' or 'off', not 'maybe'"),
        ("description.range=[1]", "setting description.range has too few entries"),
        ("lr=1", "unknown setting 'lr'. Did you mean optim.lr?"),
        ("optim.learning_rate=1", "Did you mean optim.lr?"),
        ("model.batch=1", "Did you mean optim.batch_size?"),
        ("dropout=.5", "Did you mean adapter.dropout?"),
        ("data.limit_valid=3", "Did you mean data.limit_train?"),
        ("backbone.dtype=fp32", "unknown setting 'backbone.dtype'. Did you mean data.dtype or model.dtype?"),
        ("dataset.labels=[a]", "unknown setting 'dataset.labels'. Did you mean description.labels?"),
        ("seed.x=1", "unknown setting 'seed.x'. seed has no settings in it."),
        ("backbone=tiny-llama", "Use --backbone."),
    ],
)
def test_settings(setting: str, said: str):
    assert said in refused(*PLAN, "--set", setting)


@pytest.mark.parametrize("text", ["Heard:", "a: b: c", "[sic", "5", "yes", "'quoted'", '"Heard:"', "a - b", "{x}"])
def test_a_text_is_taken_as_it_stands(text: str):
    (run,), _ = plan_runs(RunRequest("tiny-llama", "synthetic-erc", overrides=(f"adapter.cue={text}",)))
    assert run.adapter.cue == text.strip("'\"")
    (run,), _ = plan_runs(RunRequest("tiny-llama", "synthetic-erc", overrides=("adapter.cue=null",)))
    assert run.adapter.cue is None


def test_a_run_file_with_settings_of_its_backbone(tmp_path: Path):
    for key, other in (("backbone", ["--dataset", "synthetic-erc"]), ("dataset", ["--backbone", "tiny-llama"])):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({key: {"dtype": "fp32"}}))
        said = refused("plan", "--config", tmp_path / "run.yaml", *other)
        assert f"setting {key} is to be a text, not {{'dtype': 'fp32'}}" in said
        assert "model.dtype" in said


def test_a_label_that_a_terminal_would_obey_is_named_once(tmp_path: Path):
    (tmp_path / "own.csv").write_text(TABLE)
    described = tmp_path / "own.yaml"
    whole = {"name": "own", "task": "erc", "layout": "csv", "labels": ["joy", "\x1b[31m"], "source": "own.csv"}
    described.write_text(yaml.safe_dump(whole))
    said = refused("data", "verify", described)
    assert said.count("[31m") == 1
    assert "control character" in said


def test_what_is_offered_ends_before_what_else_would_do():
    said = refused("plan", "--backbone", "zzzzzz", "--dataset", "synthetic-erc")
    assert "tiny-llama. A folder or hub id works too." in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": 3}, "labels is to be a list, not 3"),
        ({"labels": ["joy", 1]}, "labels.1 is the number 1 as YAML reads it"),
        ({"task": ...}, "task is missing"),
        ({"task": "maybe"}, "task is to be 'msa', 'erc' or 'targets', not 'maybe'"),
        ({"task": "msa", "labels": ..., "range": [1]}, "range has too few entries"),
        ({"name": "own set/"}, "name is to be made of letters, digits, _, - and ., not 'own set/'"),
        ({"text_limit": 0}, "text_limit is to be at least 1, not 0"),
        ({"validation": 1}, "validation is to be less than 1"),
        ({"columns": ["a"]}, "columns is to be a mapping of keys, not ['a']"),
        ({"extractors": {"smell": {}}}, "extractors.smell"),
    ],
)
def test_descriptions(tmp_path: Path, changed: dict[str, Any], said: str):
    (tmp_path / "own.csv").write_text(TABLE)
    whole = {"name": "own", "task": "erc", "layout": "csv", "labels": ["joy", "sad"], "source": "own.csv"} | changed
    described = tmp_path / "own.yaml"
    described.write_text(yaml.safe_dump({key: value for key, value in whole.items() if value is not ...}))
    assert said in refused("data", "verify", described)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: [1\n", "it is not YAML, see line 2, column 1"),
        (b"a: b: c\n", "it is not YAML, see line 1, column 5"),
        ("name: grün\n".encode("latin1"), "it is not text in utf-8 at byte 8"),
        (b"- 1\n", "not a mapping"),
    ],
)
def test_files_that_are_no_yaml(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "own.yaml").write_bytes(content)
    assert said in refused("data", "verify", tmp_path / "own.yaml")
    assert said in refused(*PLAN, "--profile", tmp_path / "own.yaml")


def test_reasons():
    assert reason(FileNotFoundError(errno.ENOENT, "x")) == "there is no such file or folder"
    assert reason(OSError(errno.ENOSPC, "No space left on device")) == "the disk is full"
    assert reason(OSError(errno.EIO, "Input/output error")) == "input/output error"
    assert reason(KeyError("labels")) == "'labels' is missing"
    assert reason(ValueError("first\n  second")) == "first"
    with pytest.raises(json.JSONDecodeError) as broken:
        json.loads('{"a": 1,\n "b"}')
    assert reason(broken.value) == "see line 2, column 5"


class TestSetsThatAreNotFound:
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("moods").mkdir()
        Path("moods/own.csv").write_text(TABLE)
        Path("mosi").mkdir()

    @pytest.mark.parametrize("command", [["data", "verify"], ["plan", "--backbone", "tiny-llama", "--dataset"]])
    def test_a_folder_or_file_of_that_name(self, command: list[str]):
        said = refused(*command, "moods")
        assert "'moods' is a folder" in said
        assert "--dataset moods --source moods --labels" in said
        assert "mosi" not in said
        assert "--dataset own --source moods/own.csv --labels" in refused(*command, "moods/own.csv")

    def test_files_that_are_given(self):
        said = refused("baseline", "lf-lstm", "--dataset", "ravdess", "--source", "moods/own.csv")
        assert "give --labels joy,sad" in said
        assert "Did you mean" not in said

    def test_a_folder_that_is_misspelt(self):
        for name in ("own", "mosei", "mosi"):
            labels = [] if name.startswith("mos") else ["--labels", "joy,sad"]
            said = refused("data", "verify", name, "--source", "mods/x", *labels)
            assert "there is no such file or folder" in said
            assert "moods" in said
            assert ".pkl" not in said
        assert "no such file or folder" in refused("data", "verify", "own", "--source", "elsewhere")

    def test_a_folder_without_samples(self):
        said = refused("data", "verify", "own", "--source", "moods", "--labels", "joy,sad")
        assert "the folder holds own.csv" in said
        assert "--source FILE.csv" in said

    def test_a_known_set_whose_folder_lies_here(self):
        assert "mosi lies here: --source mosi" in refused("data", "verify", "mosi")


class TestCheckpoints:
    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_llama_folder(), tmp_path / "checkpoint"))

    def change(self, copy: Path, **changes: Any) -> None:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | changes))

    def refusal(self, folder: Path) -> str:
        with pytest.raises(MsekitError) as error:
            load_backbone(str(folder), device="cpu")
        assert not THEIRS.search(str(error.value)), str(error.value)
        return str(error.value)

    def test_an_encoder_is_no_causal_lm(self, copy: Path):
        for kind, stated in (
            ("bert", "BertModel"),
            ("roberta", "RobertaForMaskedLM"),
            ("xlm-roberta", "XLMRobertaModel"),
        ):
            self.change(copy, model_type=kind, architectures=[stated])
            assert f"{stated} is no causal LM" in self.refusal(copy)

    def test_what_writes_nothing_or_answers_alone_is_no_causal_lm(self, copy: Path):
        for kind in ("t5", "vit", "clip"):
            self.change(copy, model_type=kind, architectures=["TheirClass"])
            assert f"{kind} is no causal LM" in self.refusal(copy)
            said = refused("plan", "--backbone", copy, "--dataset", "synthetic-erc")
            assert f"{kind} is no causal LM" in said
            assert "model.checkpointing" not in said

    def test_a_folder_without_a_tokenizer(self, copy: Path):
        (copy / "tokenizer.json").unlink()
        assert "the checkpoint has no tokenizer (tokenizer.json, " in self.refusal(copy)

    def test_a_head_of_another_kind(self, copy: Path):
        tensors = load_file(copy / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors | {"score.weight": torch.ones(2, 64)}, copy / "model.safetensors", {"format": "pt"})
        self.change(copy, architectures=["LlamaForSequenceClassification"])
        said = self.refusal(copy)
        assert "is a LlamaForSequenceClassification, which is no causal LM: it lacks 1 of the weights" in said
        assert "lm_head.weight" in said

    def test_weights_of_another_shape(self, copy: Path):
        self.change(copy, intermediate_size=96)
        assert "of another shape than its config.json says" in self.refusal(copy)


def test_options_are_alike_everywhere(tmp_path: Path):
    (tmp_path / "own.csv").write_text(TABLE.replace(",", ";").replace("label", "mood"))
    own = ["--source", tmp_path / "own.csv", "--labels", "joy,sad", "--delimiter", ";", "--columns", "label=mood"]
    own += ["--validation", "0.4", "--prompt", "Mood:"]
    done = CliRunner().invoke(app, [*map(str, ["plan", "--backbone", "tiny-llama", "--dataset", "own", *own])])
    assert done.exit_code == 0, (done.output, done.exception)  # it opens no file of one's own
    commands = (
        ["data", "verify", "own"],
        ["baseline", "text-linear", "--dataset", "own", "--output", tmp_path / "base"],
        ["reproduce", "table3", "--backbone", "tiny-llama", "--dataset", "own", "--output", tmp_path / "table"],
        ["train", "--backbone", "tiny-llama", "--dataset", "own", "--output", tmp_path / "run"],
    )
    for command in commands:  # there is a validation split: each command that understands the options says so
        assert "there is a validation split already" in refused(*command, *own)


def test_short_help_and_settings_by_option():
    for command in ([], ["train"], ["data"], ["data", "verify"], ["backbone", "list"], ["predict"]):
        assert CliRunner().invoke(app, [*command, "-h"]).exit_code == 0, command
    for command in (["train"], ["plan"], ["reproduce", "table2"]):
        done = CliRunner().invoke(app, [*command, "--lr", "1e-3"])
        assert done.exit_code == 2
        assert "--set optim.lr=…" in done.output
    assert "--set" not in CliRunner().invoke(app, ["doctor", "--lr", "1"]).output


def test_names_that_mean_nothing_stay_unknown():
    assert "Known: " in refused(*PLAN, "--set", "zzzz=1") or "Did you mean" in refused(*PLAN, "--set", "zzzz=1")
    with pytest.raises(MsekitError, match="Known: cherma"):
        resolve_dataset("zzzz")
