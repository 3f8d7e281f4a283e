"""Every mistake of a user: one clear line, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError

TRAIN = ["train", "--backbone", "tiny-llama"]


def row(label="joy", width=4, text="well", frames=3):
    audio = np.random.default_rng(0).normal(size=(frames, width)).astype(np.float32)
    return {"features": {"text": text, "audio": audio, "audio_len": frames}, "label": label}


def write_erc(folder: Path, **splits) -> Path:
    """A small ERC data set in the published layout, and the YAML that describes it."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "valid", "test"):
        rows = splits.get(split, [row("joy"), row("anger")] * 4)
        (folder / f"small_{split}.pkl").write_bytes(pickle.dumps(rows))
    description = {"name": "small", "task": "erc", "layout": "erc-pickle", "labels": ["joy", "anger"], "source": "."}
    (folder / "small.yaml").write_text(yaml.safe_dump(description))
    return folder / "small.yaml"


def refused(*arguments: object) -> str:
    """Run in this process; returns the message of the refusal."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, MsekitError), (result.exception, result.output)
    message = str(result.exception)
    assert "\n" not in message.strip(), "one line"
    return message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "optim.lr=1", "--set", "optim.epochs=2", "--set", "optim.lr=2"), "--set optim.lr is given 2 times"),
        (("--epochs", "1", "--set", "optim.epochs=2"), "--set optim.epochs: --epochs says it too"),
        (("--limit-train", "8", "--set", "data.limit_train=8"), "--set data.limit_train: --limit-train says it too"),
        (("--adapter", "mse", "--set", "adapter.name=mult"), "--set adapter.name: --adapter says it too"),
    ],
)
def test_a_setting_is_given_once(options: tuple[str, ...], said: str):
    assert refused(*TRAIN, "--dataset", "synthetic-erc", "--dry-run", *options) == f"{said}. Keep one of them."


@pytest.mark.slow
def test_the_command_prints_one_line_and_exits_with_2(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "msekit", "train", "--backbone", "tiny-lama", "--dataset", "synthetic-erc"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "error: unknown backbone 'tiny-lama'. Did you mean tiny-llama? A folder or hub id works too."
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*")), "no run folder is left behind"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--dataset", "synthetic-ecr"], "Did you mean synthetic-erc"),
        (["--dataset", "nowhere/set.yaml"], "no such data set description"),
        (["--dataset", "mosei", "--source", "/nowhere"], "/nowhere"),
        ([], "no dataset given"),
        (["--dataset", "synthetic-erc", "--set", "optim.learning=1"], "unknown setting 'optim.learning'"),
        (["--dataset", "synthetic-erc", "--set", "optim.lr=fast"], "optim.lr"),
        (["--dataset", "synthetic-erc", "--set", "optim.lr"], "key=value"),
        (["--dataset", "synthetic-erc", "--recipe", "papper"], "recipe"),
        (["--dataset", "synthetic-erc", "--seeds", "1,x"], "--seeds"),
        (["--dataset", "synthetic-erc", "--config", "quickstrat"], "Did you mean quickstart"),
        (["--dataset", "synthetic-erc", "--set", "evaluation.estimate=mean"], "intensities"),
        (["--dataset", "synthetic-erc", "--set", "data.text_limit=5000"], "was trained for"),
    ],
)
def test_wrong_names_and_settings(arguments, expected, tmp_path: Path):
    assert expected in refused(*TRAIN, *arguments, "--output", tmp_path / "run")
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_an_unknown_backbone_among_folders(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    message = refused(
        "train", "--backbone", tmp_path / "empty", "--dataset", "synthetic-erc", "--output", tmp_path / "r"
    )
    assert "config.json" in message
    assert not (tmp_path / "r").exists()


def test_a_checkpoint_that_needs_its_own_code_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "odd", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    message = refused("train", "--backbone", tmp_path, "--dataset", "synthetic-erc", "--output", tmp_path / "run")
    assert "never runs" in message
    assert not (tmp_path / "ran").exists()


def test_a_truncated_pickle(tmp_path: Path):
    description = write_erc(tmp_path / "data")
    file = tmp_path / "data" / "small_valid.pkl"
    file.write_bytes(file.read_bytes()[:-40])
    message = refused(*TRAIN, "--dataset", description, "--output", tmp_path / "run")
    assert "small_valid.pkl" in message
    assert "truncated" in message
    assert not (tmp_path / "run").exists()


def test_a_pickle_with_code_in_it(tmp_path: Path):
    canary = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    description = write_erc(tmp_path / "data", train=[row(), Attack()])
    message = refused(*TRAIN, "--dataset", description, "--output", tmp_path / "run")
    assert "system" in message
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"test": []}, "test"),
        ({"train": [row("joy"), row("rage")]}, "rage"),
        ({"train": [row("joy"), row("anger", width=5)]}, "5 features per frame, earlier rows have 4"),
    ],
    ids=["an empty split", "an unknown label", "two widths"],
)
def test_unusable_features(splits, expected, tmp_path: Path):
    description = write_erc(tmp_path / "data", **splits)
    assert expected in refused(*TRAIN, "--dataset", description, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_outside_the_range(tmp_path: Path):
    part = {"raw_text": ["a", "b"], "audio": np.ones((2, 3, 4)), "audio_lengths": [3, 3], "id": ["1", "2"]}
    splits = {split: part | {"regression_labels": np.array([0.5, 3.4])} for split in ("train", "valid", "test")}
    (tmp_path / "set.pkl").write_bytes(pickle.dumps(splits))
    description = {"name": "x", "task": "msa", "layout": "msa-pickle", "range": [-3, 3], "source": "set.pkl"}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(description))
    message = refused(*TRAIN, "--dataset", tmp_path / "x.yaml", "--output", tmp_path / "run")
    assert "3.4" in message
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_holds_something(tmp_path: Path):
    (tmp_path / "seed-1111").mkdir()
    (tmp_path / "seed-1111" / "notes.txt").write_text("mine")
    message = refused(*TRAIN, "--dataset", "synthetic-erc", "--output", tmp_path)
    assert "already holds" in message
    assert [path.name for path in tmp_path.rglob("*.*")] == ["notes.txt"]
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be written" in refused(*TRAIN, "--dataset", "synthetic-erc", "--output", file)


def test_an_output_folder_that_cannot_be_written():
    assert "cannot be written" in refused(*TRAIN, "--dataset", "synthetic-erc", "--output", "/proc/msekit-run")


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 4 MB, nearly full."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_output_disk(small_disk: Path):
    message = refused(*TRAIN, "--dataset", "synthetic-erc", "--output", small_disk / "run")
    assert "MB are free" in message
    assert not list(small_disk.iterdir())
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(b"\0" * (8 << 20))
    assert "cannot be written" in refused(*TRAIN, "--dataset", "synthetic-erc", "--output", small_disk / "run")


@pytest.mark.slow
def test_features_of_another_width_than_the_checkpoint(tmp_path: Path):
    wide = write_erc(tmp_path / "wide", **{s: [row("joy", 6), row("anger", 6)] * 4 for s in ("train", "valid", "test")})
    narrow = write_erc(tmp_path / "narrow")
    result = CliRunner().invoke(
        app, [*TRAIN, "--dataset", str(wide), "--epochs", "1", "--output", str(tmp_path / "run")]
    )
    assert result.exit_code == 0, result.exception
    message = refused("evaluate", tmp_path / "run", "--source", narrow.parent)
    assert "width 6" in message
    assert "width 4" in message


def test_a_run_that_is_none(tmp_path: Path):
    assert "no trained run" in refused("evaluate", tmp_path)
    assert str(tmp_path) in refused("report", tmp_path)
