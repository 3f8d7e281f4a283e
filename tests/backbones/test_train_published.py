"""Training, resuming and evaluating on checkpoints as they are published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_server import HubServer
from typer.testing import CliRunner

from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.fingerprint import fingerprint_checkpoint
from msekit.cli.main import app
from msekit.errors import MsekitError

SHORT = ["--limit-train", "32", "--set", "evaluation.bootstrap=0"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dataset"), [("qwen1", "synthetic-erc"), ("chatglm3", "synthetic-msa")])
def test_train_resume_and_evaluate(published, tmp_path: Path, kind: str, dataset: str):
    folder = published(kind)
    train = ["train", "--backbone", folder, "--dataset", dataset, *SHORT]
    run(*train, "--epochs", 2, "--output", tmp_path / "whole")
    whole = tmp_path / "whole" / "seed-1111"
    report = json.loads((whole / "report.json").read_text())
    assert report["backbone_fingerprint"] == fingerprint_checkpoint(folder)
    for file in ("report.json", "predictions-test.jsonl"):  # as if stopped before the test split
        (whole / file).unlink()
    run(*train, "--epochs", 2, "--output", tmp_path / "whole", "--resume")
    assert json.loads((whole / "report.json").read_text())["metrics"] == report["metrics"]
    found = json.loads(run("evaluate", tmp_path / "whole", "--split", "test", "--format", "json"))
    assert found["metrics"] == report["metrics"]


@pytest.mark.parametrize(("kind", "length"), [("qwen1", 8192), ("chatglm3", 32768)])
def test_longer_than_trained_for_is_refused(published, tmp_path: Path, kind: str, length: int):
    arguments = ["train", "--backbone", published(kind), "--dataset", "synthetic-erc", "--output", tmp_path / "run"]
    with pytest.raises(MsekitError, match=rf"exceed the {length} that .* was trained for"):
        run(*arguments, "--set", f"data.text_limit={length}")
    assert not (tmp_path / "run").exists()


def test_a_long_text_is_cut_and_counted(published, tmp_path: Path):
    """10,000 characters, emoji, control characters and no text at all, in the published layout."""
    import pickle

    import yaml

    texts = ["a" * 10_000, "🙂" * 3_000, "", "\x00\x01\x7f\u200b", "</s><|im_end|>[gMASK]", "well"]
    rows = [{"features": {"text": text}, "label": label} for text in texts for label in ("joy", "anger")]
    for row in rows:
        row["features"] |= {"audio": [[0.5, 1.0]] * 3, "audio_len": 3}
    for split in ("train", "valid", "test"):
        (tmp_path / f"hard_{split}.pkl").write_bytes(pickle.dumps(rows))
    description = {"name": "hard", "task": "erc", "layout": "erc-pickle", "labels": ["joy", "anger"], "source": "."}
    (tmp_path / "hard.yaml").write_text(yaml.safe_dump(description))
    for kind in ("qwen1", "chatglm3"):
        train = ["train", "--backbone", published(kind), "--dataset", tmp_path / "hard.yaml", "--epochs", 1]
        arguments = [*train, "--output", tmp_path / kind, "--set", "evaluation.bootstrap=0"]
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.exception
        assert "texts are longer than" in result.stderr
        lines = (tmp_path / kind / "seed-1111" / "predictions-test.jsonl").read_text().splitlines()
        assert len(lines) == len(rows)


def test_a_backbone_of_the_hub_is_fetched_then_planned_then_trained(
    hub: HubServer, own_cache: Path, tmp_path: Path
) -> None:
    folder = tiny_llama_folder()
    hub.add("someone/tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
    arguments = ["train", "--backbone", "someone/tiny", "--dataset", "synthetic-erc", "--limit-train", "16"]
    options = ["--epochs", "1", "--output", str(tmp_path / "run"), "--set", "evaluation.bootstrap=0"]
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, (done.output, done.exception)
