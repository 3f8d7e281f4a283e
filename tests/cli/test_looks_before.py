"""`reproduce`, `sweep`, `baseline`, `average` and `import-adapter`: what cannot be is told before torch loads."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of torch fails, also in a process that has it already; so do our modules that need it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    ours = ("msekit.training", "msekit.studies", "msekit.sharing", "msekit.model", "msekit.baselines.run")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, MsekitError), (done.exception, done.output)
    return str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reproduce", "table2", "--dataset", "mosei", "--source", "/nowhere"], "/nowhere"),
        (["reproduce", "table2", "--backbone", "tiny-lama", "--dataset", "synthetic-msa"], "Did you mean tiny-llama"),
        (["baseline", "lf-lstm", "--dataset", "mosei", "--source", "/nowhere"], "/nowhere"),
        (["baseline", "lf-lsmt", "--dataset", "synthetic-erc"], "unknown baseline 'lf-lsmt'. Did you mean"),
        (
            ["baseline", "llm-linear", "--dataset", "synthetic-erc", "--backbone", "tiny-lama"],
            "Did you mean tiny-llama",
        ),
        (
            ["baseline", "lf-lstm", "--dataset", "synthetic-erc", "--output", GOLDEN / "stopped"],
            "a run of msekit train",
        ),
        (["average", "/nowhere"], "no such run folder"),
        (["average", GOLDEN / "finished", "--output", GOLDEN / "averaged"], "already holds"),
        (["import-adapter", "/nowhere.pth", "--backbone", "a", "--dataset", "mosi", "--output", "o"], "no such file"),
    ],
)
def test_before_torch(arguments: list[object], said: str):
    assert said in refused(*arguments)


def test_a_finished_baseline_names_what_differs(tmp_path: Path):
    shutil.copytree(GOLDEN / "baseline", tmp_path / "base")
    report = json.loads((tmp_path / "base" / "seed-1111" / "report.json").read_text())
    command = ["baseline", report["adapter"], "--dataset", report["dataset"], "--output", tmp_path / "base"]
    epochs = (report["epochs"] or 0) + 7
    assert f"epochs: {report['epochs']} → {epochs}" in refused(*command, "--epochs", epochs)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"backbone": "tiny-lama", "dataset": "synthetic-erc"}, "Did you mean tiny-llama"),
        ({"backbone": "tiny-llama", "dataset": "mosei", "source": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_sweep(tmp_path: Path, base: dict[str, str], said: str):
    grid = {"output": str(tmp_path / "out"), "base": base, "grid": {"optim.lr": [1e-3, 1e-4]}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert said in refused("sweep", tmp_path / "grid.yaml")
    assert not (tmp_path / "out").exists()
