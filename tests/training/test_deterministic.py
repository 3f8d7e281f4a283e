"""`--deterministic` refuses what computes otherwise every time; and what a report says of a GPU's memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.process import deterministic
from msekit.runs.machine import peaks
from msekit.training.loop import Run
from msekit.yaml_file import read_mapping

SHORT = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "16", "--epochs", "1"]
SHORT += ["--recipe", "kit", "--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]


def test_a_run_asks_torch_for_it_and_computes_the_same_on_a_cpu(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, step = [], Run.step

    def looking(self: Run, *given: object):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *given)

    monkeypatch.setattr(Run, "step", looking)
    tensors = []
    for name, more in (("plain", []), ("asked", ["--deterministic"])):
        done = CliRunner().invoke(app, [*SHORT, *more, "--output", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        tensors.append(load_file(tmp_path / name / "seed-1111" / "adapter.safetensors"))
        config = read_mapping(tmp_path / name / "seed-1111" / "config.yaml", "run")
        assert config["optim"]["deterministic"] == bool(more)
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_an_operator_that_has_no_such_form_is_named_with_a_way_out():
    with pytest.raises(MsekitError, match=r"--deterministic: put_ .*Leave --deterministic out"), deterministic(True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="another"), deterministic(True):
        raise RuntimeError("another")
    with deterministic(False):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_a_report_says_what_a_gpu_s_allocator_held(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5)
    assert peaks(torch.device("cuda")) == {"peak_memory_bytes": 3, "peak_memory_reserved_bytes": 5}
    assert set(peaks(torch.device("cpu"))) == {"peak_memory_bytes"}
