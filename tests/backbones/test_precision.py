"""The precision of a run that asks for none: by what a CPU has, and by the clock."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from msekit.backbones import precision
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.load import load_backbone
from msekit.cli.main import app
from msekit.errors import MsekitError, StoppedError
from msekit.inference.load import load_run
from msekit.reporter import Reporter
from msekit.studies.verify_backbone import verify_backbone
from msekit.training import loop

CPU = torch.device("cpu")
TINY = ["--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "16", "--epochs", "2"]
TINY += ["--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU with AMX, where bf16 products take a third of the time, also narrow ones."""
    monkeypatch.setattr(precision, "abilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(precision, "times_as_quick_in_bf16", lambda *_: 3.0)
    monkeypatch.setattr(precision, "_NARROWEST", 1)


def test_a_run_takes_bf16_where_it_is_quicker_by_half(amx: None, monkeypatch: pytest.MonkeyPatch):
    folder = tiny_llama_folder()
    assert precision.run_dtype(folder, "none", CPU) == "bf16"
    assert precision.run_dtype(folder, "nf4", CPU) == "fp32"
    monkeypatch.setattr(precision, "times_as_quick_in_bf16", lambda *_: 1.4)
    assert precision.run_dtype(folder, "none", CPU) == "fp32"


def test_a_narrow_llm_and_a_cpu_without_a_unit_are_not_even_timed(monkeypatch: pytest.MonkeyPatch):
    def never(*_: int) -> float:
        raise AssertionError("timed")

    monkeypatch.setattr(precision, "times_as_quick_in_bf16", never)
    for units in ({"amx_bf16": True}, {"avx2": True}, {}):
        monkeypatch.setattr(precision, "abilities", lambda units=units: units)
        assert precision.run_dtype(tiny_llama_folder(), "none", CPU) == "fp32"


def test_the_clock_says_what_this_cpu_is_quick_in():
    """Whichever it is: with a unit for bf16 wide products are no slower in it, without one far slower."""
    precision.times_as_quick_in_bf16.cache_clear()
    ratio = precision.times_as_quick_in_bf16(576, 1536)
    if precision.abilities().get("amx_bf16"):
        assert ratio > 1
    elif not precision.has_bf16_unit():
        assert ratio < precision.WORTH


def test_the_library_gives_fp32_on_a_cpu(amx: None):
    assert load_backbone("tiny-llama", device="cpu").model.dtype == torch.float32


@pytest.mark.slow
def test_a_run_in_bf16_trains_and_is_used_in_fp32_where_bf16_is_slow(amx: None, tmp_path: Path, monkeypatch):
    longer = ["--epochs", "4", "--set", "optim.batch_size=4", "--recipe", "kit"]  # which leaves nothing out by chance
    trained = CliRunner().invoke(app, ["train", *TINY, *longer, "--output", str(tmp_path)])
    assert trained.exit_code == 0, trained.output
    folder = tmp_path / "seed-1111"
    assert json.loads((folder / "report.json").read_text())["dtype"] == "bfloat16"
    losses = [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    here = load_run(folder, device="cpu")
    assert here.backbone.model.dtype == torch.bfloat16
    monkeypatch.setattr(precision, "abilities", dict)
    elsewhere = load_run(folder, device="cpu")
    assert elsewhere.backbone.model.dtype == torch.float32
    mine, theirs = (run.predict("It is so good.", audio=None, vision=None) for run in (here, elsewhere))
    assert mine.scores.keys() == theirs.scores.keys()
    assert all(mine.scores[label] == pytest.approx(theirs.scores[label], abs=0.05) for label in mine.scores)


def evaluated_in(folder: Path) -> str:
    done = CliRunner().invoke(app, ["evaluate", str(folder), "--format", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output[done.output.index("{") :])["dtype"]


@pytest.mark.slow
def test_a_run_keeps_the_precision_that_it_began_in(amx: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the clock says later: when it is resumed, evaluated, verified."""
    command = ["train", *TINY, "--set", "optim.batch_size=4", "--output", str(tmp_path)]
    learning_rate, steps = loop.learning_rate, iter(range(100))

    def stopping(*given: float) -> float:
        if next(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(*given)

    monkeypatch.setattr(loop, "learning_rate", stopping)
    assert isinstance(CliRunner().invoke(app, command).exception, StoppedError)
    monkeypatch.setattr(precision, "times_as_quick_in_bf16", lambda *_: 1.4)
    resumed = CliRunner().invoke(app, [*command, "--resume"])
    assert resumed.exit_code == 0, resumed.output
    folder = tmp_path / "seed-1111"
    report = json.loads((folder / "report.json").read_text())
    assert report["dtype"] == evaluated_in(folder) == "bfloat16"
    verified = verify_backbone(folder, Reporter(quiet=True))
    assert verified["intact"]
    assert verified["weights_now"] == report["backbone_weights"]
    monkeypatch.setattr(precision, "abilities", dict)
    assert evaluated_in(folder) == "float32"


@pytest.mark.slow
def test_a_run_in_fp32_is_not_evaluated_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "abilities", dict)
    trained = CliRunner().invoke(app, ["train", *TINY, "--output", str(tmp_path)])
    assert trained.exit_code == 0, trained.output
    monkeypatch.setattr(precision, "run_dtype", lambda *_: "bf16")
    monkeypatch.setattr("msekit.training.build.run_dtype", lambda *_: "bf16")
    assert evaluated_in(tmp_path / "seed-1111") == "float32"


def test_an_older_torch_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert not precision.has_bf16_unit()


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bf16"])
def test_a_precision_by_its_name_or_by_torchs(own_cache, dtype):
    assert load_backbone("tiny-llama", dtype=dtype, device="cpu").model.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, "float32", "torch.float32", "half", 32, [1]])
def test_any_other_precision_is_refused_with_the_known_ones(dtype):
    with pytest.raises(MsekitError, match=r"is not held in .*fp32 \(torch\.float32\), bf16"):
        load_backbone("tiny-llama", dtype=dtype, device="cpu")
