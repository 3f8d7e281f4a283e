"""What training says where nobody sees a bar: whole lines with the seed, where it stands, and what is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit import patience
from msekit.cli.main import app
from msekit.training import pace

TRAIN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "kit", "--limit-train", "64"]
SHORT = [*TRAIN, "--epochs", "2", "--set", "evaluation.bootstrap=0", "--set", "adapter.hidden=8"]
EPOCH = re.compile(
    r"seed 1111, epoch [12] of 2: \d+ of 64, step [\d,]+ of 8, loss \d\.\d+, "
    r"[\d.]+ samples/s, .+ left of the run, .+ left"
)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--parallel-seeds", "--seeds", "1111,2222"]])
def test_every_line_names_its_seed(tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "EVERY_S", 0.0)
    monkeypatch.setattr(pace, "_SURE_AFTER_S", 0.0)
    done = CliRunner().invoke(app, [*SHORT, *more, "--output", str(tmp_path / "run")], catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert all(line.strip() for line in lines)
    told = [line for line in lines if re.search(r"\bepoch\b|\bloss\b|\btest\b", line)]
    assert len(told) > 4
    assert not [line for line in told if not line.startswith("seed")]
    if not more:
        assert any(EPOCH.fullmatch(line) for line in lines), lines
        assert any("seed 1111: 2 epochs will be over in about" in line for line in lines), lines
