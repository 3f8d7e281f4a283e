"""Training on 8- and 4-bit backbones through the command line, resuming, another precision, an LLM left alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.cli.main import app
from msekit.errors import MsekitError

SHORT = ["--dataset", "synthetic-erc", "--limit-train", "32", "--epochs", "2"]
SHORT += ["--set", "evaluation.bootstrap=0", "--set", "evaluation.batch_size=80", "--recipe", "kit"]
KINDS = ("tiny-llama", "qwen1-tiny", "chatglm3-tiny")


def msekit(*arguments: object) -> str:
    """Run a command in this process; its stdout."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def name_of(kind: str, request: pytest.FixtureRequest) -> str:
    return kind if kind == "tiny-llama" else str(request.getfixturevalue("test_data") / "backbones" / kind)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on tiny-llama in nf4, undisturbed."""
    folder = tmp_path_factory.mktemp("runs") / "nf4"
    msekit("train", "--backbone", "tiny-llama", *SHORT, "--quantization", "nf4", "--output", folder)
    return folder / "seed-1111"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quantization"),
    [(kind, held) for kind in KINDS for held in ("int8", "nf4")],
)
def test_a_run_trains_tests_and_leaves_the_llm_alone(kind: str, quantization: str, tmp_path: Path, request):
    arguments = ["train", "--backbone", name_of(kind, request), *SHORT, "--quantization", quantization]
    msekit(*arguments, "--output", tmp_path / "run", "--set", "model.checkpointing=on")
    folder = tmp_path / "run" / "seed-1111"
    report = json.loads((folder / "report.json").read_text())
    assert report["quantization"] == quantization
    assert json.loads((folder / "adapter.json").read_text())["backbone"]["quantization"] == quantization
    assert report["backbone_weights"]["before"] == report["backbone_weights"]["after"]
    losses = [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[1] < losses[0]
    evidence = json.loads(msekit("verify-backbone", folder, "--format", "json"))
    assert evidence["intact"]
    assert evidence["weights_now"]["before"] == report["backbone_weights"]["after"]
    assert [line["identical"] for line in evidence["prompts"]] == [True] * 5
    assert evidence["adapter_gradient_norm"] > 0


@pytest.mark.slow
def test_killed_and_resumed_in_4_bit_is_the_same_run(trained: Path, tmp_path: Path):
    arguments = ["train", "--backbone", "tiny-llama", *SHORT, "--quantization", "nf4"]
    arguments += ["--output", str(tmp_path / "killed"), "--set", "save_minutes=0.0001"]
    process = subprocess.Popen([sys.executable, "-m", "msekit", *arguments], stderr=subprocess.DEVNULL)
    folder = tmp_path / "killed" / "seed-1111"
    while not (folder / "state" / "state.safetensors").exists():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "report.json").exists()
    msekit(*arguments, "--resume")
    assert (folder / "adapter.safetensors").read_bytes() == (trained / "adapter.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_is_evaluated_on_another_precision_with_a_notice(trained: Path):
    command = ["evaluate", str(trained), "--format", "json"]
    held = CliRunner().invoke(app, [*command, "--quantization", "none"], catch_exceptions=False)
    assert "trained with quantization nf4, evaluated with none" in " ".join(held.stderr.split())
    assert json.loads(held.stdout)["quantization"] == "none"
    same = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "evaluated with" not in same.stderr
    assert json.loads(same.stdout)["metrics"] == json.loads((trained / "report.json").read_text())["metrics"]


@pytest.mark.slow
def test_a_changed_llm_is_found_out(trained: Path, tmp_path: Path):
    """The run's backbone by folder, one weight of which changes after training."""
    backbone = Path(shutil.copytree(tiny_llama_folder(), tmp_path / "backbone"))
    msekit("train", "--backbone", backbone, *SHORT, "--output", tmp_path / "run")
    tensors = load_file(backbone / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] += 1e-3
    save_file(tensors, backbone / "model.safetensors", {"format": "pt"})
    done = CliRunner().invoke(app, ["verify-backbone", str(tmp_path / "run")])
    assert done.exit_code == 1
    (line,) = (line for line in done.stdout.splitlines() if "source weights, then and now" in line)
    assert "DIFFERENT" in line
    assert "NOT what it was" in done.stdout


@pytest.mark.slow
def test_a_report_that_owns_up_to_changed_weights_is_believed(trained: Path, tmp_path: Path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    report = json.loads((run / "report.json").read_text())
    report["backbone_weights"]["after"] = "0" * 32
    (run / "report.json").write_text(json.dumps(report))
    result = CliRunner().invoke(app, ["verify-backbone", str(run), "--format", "json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["intact"] is False


def test_verifying_what_is_no_run(tmp_path: Path):
    with pytest.raises(MsekitError, match="no trained run"):
        msekit("verify-backbone", tmp_path)
