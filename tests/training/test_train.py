"""Training on the tiny backbone through the command line: it learns, repeats itself, resumes bit for bit, refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.fingerprint import fingerprint_checkpoint
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.planning.memory import EVALUATION_BATCH
from msekit.studies.evaluate import evaluate

BASE = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc"]
SHORT = [*BASE, "--limit-train", "64", "--epochs", "3", "--set", "evaluation.bootstrap=20"]
SHORT += ["--set", "optim.opinion_samples=1"]  # the fewest epochs, in other processes too


def msekit(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "msekit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def succeed(*arguments: object) -> Result:
    """The same command in this process, which has everything imported."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished short run, undisturbed."""
    folder = tmp_path_factory.mktemp("runs") / "erc"
    done = msekit(*SHORT, "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder / "seed-1111"


@pytest.mark.slow
def test_the_run_folder_holds_what_the_contract_says(finished: Path):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml",
        "adapter.safetensors",
        "adapter.json",
        "metrics.jsonl",
        "steps.jsonl",
        "report.json",
        "predictions-test.jsonl",
        "state",
    }
    report = json.loads((finished / "report.json").read_text())
    keys = "dataset backbone adapter recipe seed split samples estimate best_epoch metrics confidence peak_memory_bytes"
    keys += " train_samples_per_s data_fingerprint backbone_fingerprint prompt_sha256 versions"
    assert set(keys.split()) <= set(report)
    assert set(report["metrics"]) == {"acc", "wf1", "macro_f1", "uar", "per_class_f1"}
    assert report["backbone_fingerprint"] == fingerprint_checkpoint(tiny_llama_folder())
    low, high = report["confidence"]["acc"]
    assert low <= report["metrics"]["acc"] <= high
    lines = [json.loads(line) for line in (finished / "predictions-test.jsonl").read_text().splitlines()]
    assert len(lines) == report["samples"] == 320
    assert sum(line["truth"] == line["prediction"] for line in lines) / 320 == pytest.approx(report["metrics"]["acc"])
    assert all(sum(line["scores"].values()) == pytest.approx(1, abs=1e-6) for line in lines)
    epochs = [json.loads(line)["epoch"] for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]
    summary = json.loads((finished.parent / "summary.json").read_text())
    assert summary["metrics"]["acc"]["mean"] == report["metrics"]["acc"]


@pytest.mark.slow
def test_only_adapter_tensors_are_saved(finished: Path):
    parts = {"states", "encoders", "opinion_head", "multi_scale_fusion", "projector", "gain"}
    tensors = load_file(finished / "adapter.safetensors")
    assert {name.split(".")[0] for name in tensors} == {*parts, "llm_weight"}
    report = json.loads((finished / "report.json").read_text())
    state = load_file(finished / "state" / "state.safetensors")
    assert {name.split(".")[0] for name in state} == {"adapter", "best", "optim", "random"}
    trained = {name.split(".", 2)[2] for name in state if name.startswith("optim.")}
    assert {name.split(".")[0] for name in trained} == parts
    assert sum(tensors[name].numel() for name in trained) == report["trainable_parameters"]
    fitted = {name.rsplit(".")[-1] for name in tensors if name not in trained}
    assert fitted == {"mean", "scale", "llm_weight"}, "what the train and validation splits decide"
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.mark.slow
def test_two_runs_with_one_seed_give_the_same_numbers(finished: Path, tmp_path: Path):
    succeed(*SHORT, "--output", tmp_path / "again")
    again = tmp_path / "again" / "seed-1111"
    assert (again / "adapter.safetensors").read_bytes() == (finished / "adapter.safetensors").read_bytes()
    assert (again / "predictions-test.jsonl").read_bytes() == (finished / "predictions-test.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("after", ["config.yaml", "state/state.safetensors", "later"])
def test_killed_and_resumed_ends_with_the_same_adapter(finished: Path, tmp_path: Path, after: str):
    """SIGKILL right after the start, right after the first saved state, and some steps into the next epoch."""
    folder = tmp_path / "killed"
    arguments = [*SHORT, "--output", str(folder), "--set", "save_minutes=0.001"]
    process = subprocess.Popen([sys.executable, "-m", "msekit", *arguments], stderr=subprocess.DEVNULL)
    awaited = folder / "seed-1111" / ("state/state.safetensors" if after == "later" else after)
    while not awaited.exists():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    if after == "later":
        time.sleep(0.25)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "seed-1111" / "report.json").exists()
    succeed(*arguments, "--resume")
    resumed = folder / "seed-1111"
    assert (resumed / "adapter.safetensors").read_bytes() == (finished / "adapter.safetensors").read_bytes()
    assert (resumed / "predictions-test.jsonl").read_bytes() == (finished / "predictions-test.jsonl").read_bytes()
    lines = [json.loads(line) for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for line, other in zip(lines, expected, strict=True):
        assert line | {"train_samples_per_s": 0} == other | {"train_samples_per_s": 0}


@pytest.mark.slow
def test_a_finished_run_is_reused_and_never_overwritten(finished: Path):
    before = (finished / "report.json").stat().st_mtime_ns
    refused = msekit(*SHORT, "--output", finished.parent)
    assert refused.returncode == 2
    assert "already holds a finished run" in refused.stderr
    succeed(*SHORT, "--output", finished.parent, "--resume")
    assert (finished / "report.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_damaged_report_is_not_taken_for_an_unfinished_run(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "run" / "seed-1111")
    (tmp_path / "run" / "seed-1111" / "report.json").write_text("{")
    done = msekit(*SHORT, "--output", tmp_path / "run", "--resume")
    assert done.returncode == 2
    assert "the report is damaged" in done.stderr


@pytest.mark.slow
def test_a_finished_run_with_other_settings_is_not_passed_off_as_this_one(finished: Path):
    done = msekit(*SHORT, "--output", finished.parent, "--resume", "--set", "optim.lr=1e-4")
    assert done.returncode == 2
    assert "finished run with other settings" in done.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_during_training(tmp_path: Path):
    """A limit on the size of any file stands in for the full disk; what is left can be resumed."""
    program = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
    program += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.argv[0] = 'msekit';"
    program += "from msekit.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, *SHORT, "--output", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*partial*"))
    succeed(*SHORT, "--output", tmp_path / "run", "--resume")


@pytest.mark.slow
def test_resuming_with_other_settings_is_refused(finished: Path, tmp_path: Path):
    import shutil

    shutil.copytree(finished, tmp_path / "run" / "seed-1111")
    (tmp_path / "run" / "seed-1111" / "report.json").unlink()
    done = msekit(*SHORT, "--output", tmp_path / "run", "--resume", "--set", "optim.lr=1e-4")
    assert done.returncode == 2
    assert "other settings" in done.stderr


@pytest.mark.slow
def test_evaluate_repeats_the_reported_test(finished: Path):
    report = json.loads((finished / "report.json").read_text())
    done = msekit("evaluate", finished.parent, "--format", "json", "--estimate", "greedy")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["metrics"] == report["metrics"]
    assert again["samples"] == 320
    own = {"epochs", "trainable_parameters", "train_seconds", "train_cpu_seconds", "machine", "backbone_weights"}
    own |= {"integrity", "opinion_seconds", "checksum", "predictions_sha256"}
    assert set(report) - own <= set(again)
    with_other_labels = msekit("evaluate", finished, "--dataset", "synthetic-msa")
    assert with_other_labels.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("content", ["{", "{}", '{"features": 3}'])
def test_a_damaged_description_is_refused(finished: Path, tmp_path: Path, content: str):
    import shutil

    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "adapter.json").write_text(content)
    with pytest.raises(MsekitError, match=r"damaged.*adapter\.json"):
        evaluate(run)


@pytest.mark.slow
def test_it_learns_what_only_audio_and_vision_tell(tmp_path: Path):
    """Two seeds of the tiny backbone, far above the .25 that text and the .50 that one modality can reach."""
    size = ("--limit-train", "480", "--epochs", "6", "--set", "optim.lr=5e-3")
    succeed(*BASE, *size, "--seeds", "1,2", "--output", tmp_path / "runs")
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    assert summary["seeds"] == [1, 2]
    assert summary["metrics"]["acc"]["mean"] > 0.7
    shuffled = json.loads(succeed("evaluate", tmp_path / "runs" / "seed-1", "--shuffle", "--format", "json").stdout)
    assert shuffled["shuffled"] is True
    assert shuffled["metrics"]["acc"] < 0.45, "with another sample's audio and vision it knows nothing"
    report = json.loads(succeed("report", tmp_path / "runs", "--format", "json").stdout)
    assert report


@pytest.mark.slow
def test_intensities_train_and_answer_on_the_grid(tmp_path: Path):
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-msa", "--limit-train", "64"]
    succeed(*arguments, "--epochs", "1", "--output", tmp_path / "msa", "--recipe", "paper")
    folder = tmp_path / "msa" / "seed-1111"
    report = json.loads((folder / "report.json").read_text())
    assert report["estimate"] == "greedy"
    assert set(report["metrics"]) >= {"mae", "corr", "acc2", "f1", "acc7"}
    first = json.loads((folder / "predictions-test.jsonl").read_text().splitlines()[0])
    assert len(first["scores"]) == 61
    assert f"{first['prediction']:+.1f}" in first["scores"]


@pytest.mark.slow
def test_a_non_finite_loss_stops_with_a_message(tmp_path: Path):
    done = msekit(*SHORT, "--output", tmp_path / "run", "--set", "optim.lr=1e30", "--set", "optim.clip_norm=null")
    assert done.returncode == 2
    assert "became" in done.stderr
    assert "optim.lr" in done.stderr
    assert not (tmp_path / "run" / "seed-1111" / "report.json").exists()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_train_without_any_modality(tmp_path: Path):
    """Nothing reaches W_t then, and DDP must not wait for its gradient."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "launch/cpu2.yaml", "-m", "msekit"]
    settings = ["--limit-train", "64", "--epochs", "2", "--set", "data.without=[audio,vision]"]
    done = subprocess.run(
        [*launcher, *BASE, *settings, "--output", str(tmp_path / "two")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_dry_run_shows_every_token_and_writes_nothing(tmp_path: Path):
    done = succeed(*BASE, "--recipe", "kit", "--output", tmp_path / "none", "--dry-run")
    shown = done.stdout + done.stderr
    for expected in ("resolved run", "pseudo token", "#4", "closing tag, prompt", "label trie: 4 labels", "calm"):
        assert expected in shown
    assert f"evaluation in batches of {EVALUATION_BATCH['cpu']}\n" in shown
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["files", "description"])
def test_a_finished_run_on_other_data_is_not_passed_off_as_this_one(finished: Path, tmp_path: Path, change: str):
    run = Path(shutil.copytree(finished, tmp_path / "run" / "seed-1111"))
    file = run / ("report.json" if change == "files" else "adapter.json")
    content = json.loads(file.read_text())
    if change == "files":
        content["data_fingerprint"] = "0" * 64
    else:
        content["dataset"]["prompt"] = "How was it said? "
    file.write_text(json.dumps(content))
    done = msekit(*SHORT, "--output", run.parent, "--resume")
    assert done.returncode == 2
    assert "finished run on other data" in done.stderr
