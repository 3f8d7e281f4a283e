"""`msekit serve` holds the LLM as the first run was trained; in what the others differ, a line each says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("uvicorn", reason="the extra msekit[serve] is not installed")

import uvicorn

from msekit.cli.main import app

GOLDEN = Path(__file__).parents[1] / "golden" / "run" / "finished" / "seed-1111"


def run_held(folder: Path, **held: str) -> Path:
    """A finished run whose LLM was held so in training."""
    shutil.copytree(GOLDEN, folder)
    description = json.loads((folder / "adapter.json").read_text())
    description["backbone"] |= held
    (folder / "adapter.json").write_text(json.dumps(description))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("first", ["none", "nf4"])
def test_every_run_that_is_served_otherwise_than_trained_has_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
):
    if first != "none":
        pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    others = {"none": "nf4", "nf4": "none"}
    runs = [
        run_held(tmp_path / "first", quantization=first),
        run_held(tmp_path / "second", quantization=others[first]),
        run_held(tmp_path / "third", quantization=first, dtype="float16"),
    ]
    done = CliRunner().invoke(app, ["serve", *map(str, runs), "--port", "0", "--force"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if "scores differ" in line]
    assert lines == [
        f"warning: second: trained with quantization {others[first]}, used with {first}: scores differ a little",
        "warning: third: trained in float16, used in float32: scores differ a little",
    ]
