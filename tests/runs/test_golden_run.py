"""Run folders that version 0.1.0 left, in `tests/golden/run`: they load, evaluate alike, and a stopped one ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import msekit
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.fingerprint import fingerprint_checkpoint
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.reports.compare import compare
from msekit.reports.html import html_report
from msekit.runs.config import read_config
from msekit.runs.description import read_description, read_spec_of
from msekit.runs.predictions import read_predictions
from msekit.runs.report import collect, read_report
from msekit.runs.tensors import read_tensors
from msekit.studies.evaluate import open_run
from msekit.studies.verify_backbone import verify_backbone
from msekit.training.outcome import prediction_lines

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
FINISHED, STOPPED = GOLDEN / "finished" / "seed-1111", GOLDEN / "stopped" / "seed-1111"
QUIET = Reporter(quiet=True)
SHORT = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "64", "--epochs", "3"]
SHORT += [word for size in ("hidden=8", "audio_hidden=4", "vision_hidden=4") for word in ("--set", f"adapter.{size}")]
SHORT += ["--set", "evaluation.bootstrap=20", "--recipe", "kit"]
SCORES = 1e-4
"""Probabilities of other CPUs and thread counts differ by sums in another order: about 1e-6 here."""


def without_uar(value: Any) -> Any:
    """Figures of today without the metric that those runs did not have."""
    return {name: figure for name, figure in value.items() if name != "uar"} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def same_backbone(own_cache: Path) -> None:
    """tiny-llama's weights are drawn by torch's vectorised generator, which AVX2 and AVX-512 have in common."""
    trained = read_description(FINISHED).backbone.fingerprint
    if fingerprint_checkpoint(tiny_llama_folder()) != trained:
        pytest.skip(f"torch draws other weights for tiny-llama here ({torch.backends.cpu.get_cpu_capability()})")


def test_every_file_is_read():
    for folder, kind in (
        (FINISHED, "plug-in"),
        (GOLDEN / "finished" / "seed-2222", "plug-in"),
        (GOLDEN / "prompt-first" / "seed-1111", "plug-in"),
        (GOLDEN / "averaged", "averaged"),
        (STOPPED, "plug-in"),
    ):
        description = read_description(folder)
        assert description.kind == kind
        assert description.trainable_parameters == 2026
        assert sum(tensor.numel() for tensor in read_tensors(folder / "adapter.safetensors")[0].values()) == 2026
        assert read_config(folder).backbone == description.backbone.name == "tiny-llama"
    assert read_description(GOLDEN / "averaged").averaged_seeds == [1111, 2222]
    assert read_description(GOLDEN / "prompt-first" / "seed-1111").layout == "prompt-first"
    assert read_report(STOPPED) is None


def test_a_baseline_says_what_it_answers_and_is_no_plug_in():
    folder = GOLDEN / "baseline" / "seed-1111"
    assert read_spec_of(folder).labels == ("calm", "glad", "sad", "angry")
    report = read_report(folder)
    assert report is not None
    assert report.adapter == "lf-lstm"
    with pytest.raises(MsekitError, match="baseline, which leaves no adapter"):
        read_description(folder)


def test_reports_hold_what_they_held():
    for folder in sorted(GOLDEN.glob("*/seed-*")):
        report = read_report(folder)
        if report is not None:
            assert report.document() == json.loads((folder / "report.json").read_text())
            assert not report.model_extra
    runs = collect([GOLDEN / "finished", GOLDEN / "prompt-first", GOLDEN / "baseline"])
    assert len({run.key for run in runs}) == 3, "two seeds, another layout, a baseline"


def test_reports_are_drawn_and_compared(tmp_path: Path):
    runs = [str(GOLDEN / name) for name in ("finished", "prompt-first", "baseline")]
    done = CliRunner().invoke(app, ["report", *runs, "--format", "markdown"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "19.57 ± 0.51" in done.stdout
    assert "lf-lstm" in done.stdout
    page = html_report([FINISHED, GOLDEN / "baseline"])
    assert "confusion matrix" in page
    document = compare(FINISHED, GOLDEN / "baseline", repeats=10)
    assert document["metrics"]["acc"]["difference"] == pytest.approx(0.378125 - 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["finished/seed-1111", "finished/seed-2222", "prompt-first/seed-1111"])
def test_evaluation_gives_the_reported_metrics(same_backbone, folder: str):
    run = GOLDEN / folder
    reported = json.loads((run / "report.json").read_text())
    done = CliRunner().invoke(app, ["evaluate", str(run), "--format", "json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)
    for key in ("metrics", "confidence", "predicted", "data_fingerprint", "backbone_fingerprint", "prompt_sha256"):
        assert without_uar(again[key]) == reported[key], key


@pytest.mark.slow
def test_every_score_is_the_reported_one(same_backbone):
    from msekit.distributed.accelerator import accelerator_for
    from msekit.evaluation.scoring import score_split

    _, _, parts = open_run(FINISHED, ("test",), reporter=QUIET)
    accelerator = accelerator_for(parts.backbone.device)
    scores = score_split(parts.model, parts.collators["test"], 16, accelerator, QUIET, "test")
    lines = prediction_lines(scores, parts.collators["test"].split.ids, "greedy")
    reported = [json.loads(line) for line in (FINISHED / "predictions-test.jsonl").read_text().splitlines()]
    for line, other in zip(lines, reported, strict=True):
        assert list(line) == list(other)
        assert {key: line[key] for key in ("id", "truth", "prediction")} == {
            key: other[key] for key in ("id", "truth", "prediction")
        }
        assert line["scores"] == pytest.approx(other["scores"], abs=SCORES)
    assert len(read_predictions(FINISHED, parts.spec).ids) == 320


@pytest.mark.slow
def test_the_plug_in_predicts_and_the_seeds_average(same_backbone, tiny, tmp_path: Path):
    plug_in = msekit.load_run(GOLDEN / "averaged", tiny)
    assert plug_in.predict("I am here").prediction in plug_in.description.dataset.labels
    arguments = ["average", str(GOLDEN / "finished"), "--output", str(tmp_path / "averaged"), "--format", "json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    tensors, _ = read_tensors(tmp_path / "averaged" / "adapter.safetensors")
    for name, tensor in read_tensors(GOLDEN / "averaged" / "adapter.safetensors")[0].items():
        assert torch.equal(tensor, tensors[name]), name
    own, golden = read_description(tmp_path / "averaged"), read_description(GOLDEN / "averaged")
    assert own.model_dump() == golden.model_dump()


@pytest.mark.slow
def test_the_backbone_is_verified_in_the_layout_that_was_trained(same_backbone, monkeypatch):
    from msekit.model import mse_model

    orders = []
    layout = mse_model.MSEModel.__init__

    def watched(self, backbone, adapter, prompt, labels):
        orders.append(prompt.order)
        layout(self, backbone, adapter, prompt, labels)

    monkeypatch.setattr(mse_model.MSEModel, "__init__", watched)
    evidence = verify_backbone(GOLDEN / "prompt-first" / "seed-1111", QUIET)
    assert evidence["intact"]
    assert orders == ["prompt-first"]


@pytest.mark.slow
def test_a_stopped_run_ends_as_the_undisturbed_one(same_backbone, tmp_path: Path):
    run = Path(shutil.copytree(STOPPED, tmp_path / "run" / "seed-1111"))
    done = CliRunner().invoke(app, [*SHORT, "--output", str(run.parent), "--resume"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "resuming after epoch 1, batch 1" in done.stderr
    own = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    undisturbed = [json.loads(line) for line in (FINISHED / "metrics.jsonl").read_text().splitlines()]
    for line, other in zip(own, undisturbed, strict=True):
        for key in ("train_loss", "valid_loss"):
            assert line[key] == pytest.approx(other[key], abs=1e-3), (line["epoch"], key)
    tensors, _ = read_tensors(run / "adapter.safetensors")
    for name, tensor in read_tensors(FINISHED / "adapter.safetensors")[0].items():
        assert torch.equal(tensor, tensors[name]), "the best epoch lies before the stop"
    report, other = read_report(run), read_report(FINISHED)
    assert report is not None
    assert other is not None
    assert without_uar(report.metrics) == other.metrics
    assert (report.epochs, report.best_epoch) == (other.epochs, other.best_epoch)


@pytest.mark.slow
def test_a_finished_run_is_reused_and_other_settings_are_not(same_backbone, tmp_path: Path):
    run = Path(shutil.copytree(FINISHED, tmp_path / "run" / "seed-1111"))
    again = [*SHORT, "--output", str(run.parent), "--resume"]
    for more in ([], ["--set", "model.dtype=fp32"], ["--set", "evaluation.batch_size=7"]):
        done = CliRunner().invoke(app, [*again, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "finished and reused" in done.stderr
    for more in (["--set", "model.dtype=bf16"], ["--set", "optim.lr=1e-4"]):
        done = CliRunner().invoke(app, [*again, *more])
        assert isinstance(done.exception, MsekitError)
        assert "other settings" in str(done.exception)


@pytest.mark.slow
def test_a_state_of_other_settings_is_refused(same_backbone, tmp_path: Path):
    run = Path(shutil.copytree(STOPPED, tmp_path / "run" / "seed-1111"))
    for more in (["--set", "model.dtype=bf16"], ["--set", "optim.lr=1e-4"]):
        done = CliRunner().invoke(app, [*SHORT, "--output", str(run.parent), "--resume", *more])
        assert isinstance(done.exception, MsekitError)
        assert "other settings" in str(done.exception)


def test_a_run_made_in_w8a8_is_used_in_int8(own_cache: Path, same_backbone: None, tmp_path: Path):
    """LLM.int8 has the same weights."""
    folder = tmp_path / "run"
    shutil.copytree(FINISHED, folder)
    for name in ("config.yaml", "adapter.json", "report.json"):
        text = (folder / name).read_text()
        changed = text.replace("quantization: none", "quantization: w8a8")
        changed = changed.replace('"quantization": "none"', '"quantization": "w8a8"')
        assert changed != text
        (folder / name).write_text(changed)
    _, config, parts = open_run(folder, ("test",), reporter=QUIET)
    assert config.model.quantization == "int8"
    assert parts.backbone.model.config.quantization_config.load_in_8bit
    older, notice = msekit.load_run(folder).notices
    assert "an older msekit made it" in older
    assert "trained with quantization w8a8, used with int8" in notice
