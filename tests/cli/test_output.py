"""A command's result goes to stdout, whole where that is a pipe; `--format json` is one document there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from msekit.cli.main import app

SHORT = ["--dataset", "synthetic-erc", "--limit-train", "16", "--epochs", "1", "--set", "evaluation.bootstrap=20"]
SILENT = {
    "train",
    "serve",
    "export",
    "push",
    "import-adapter",
    "extract",
    "fetch",
    "fetch-face-model",
    "convert",
    "prepare",
    "example",
    "explain",
    "show",
    "clips",
    "clean",
    "from-mertools",
}
"""Commands whose result is a file, a page, or not a table."""


def msekit(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.exception, result.output)
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds; their summary was on stdout."""
    folder = tmp_path_factory.mktemp("runs") / "erc"
    result = msekit("train", "--backbone", "tiny-llama", *SHORT, "--seeds", "1,2", "--output", folder)
    assert "wf1" in result.stdout
    assert " %" in result.stdout
    assert "run folder" not in result.stdout
    assert "run folder" in result.stderr
    return folder


WITHOUT_A_RUN = [
    (["data", "list"], "mosei"),
    (["data", "info", "synthetic-erc"], "audio features per frame"),
    (["data", "verify", "synthetic-erc"], "verdict: usable"),
    (["backbone", "list"], "chatglm3-6b"),
    (["backbone", "info", "qwen-1.8b"], "licence"),
    (["count-params", "--dataset", "meld"], "1,352,396"),
    (["plan", "--backbone", "qwen-1.8b", "--dataset", "meld", "--profile", "rtx4090"], "It fits."),
    (["doctor", "--no-self-test"], "C++ compiler"),
]


@pytest.mark.parametrize(("arguments", "words"), WITHOUT_A_RUN, ids=lambda value: str(value))
def test_what_needs_no_run(arguments: list[str], words: str, own_cache: Path):
    result = msekit(*arguments)
    assert words in result.stdout
    assert words not in result.stderr
    assert "…" not in result.stdout.replace(", …", ""), "nothing is cut"
    json.loads(msekit(*arguments, "--format", "json").stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("evaluate", [], "per_class_f1 calm"),
        ("evaluate", ["--robustness"], "without"),
        ("evaluate", ["--calibrate"], "temperature"),
        ("sensitivity", ["--orders", "1"], "over the prompts"),
        ("verify-backbone", [], "The LLM is intact."),
        ("report", [], "95 % interval"),
    ],
)
def test_what_reads_a_run(trained: Path, command: str, options: list[str], words: str):
    result = msekit(command, trained / "seed-1", *options)
    assert words in result.stdout
    assert words not in result.stderr
    json.loads(msekit(command, trained / "seed-1", *options, "--format", "json").stdout)


@pytest.mark.slow
def test_what_reads_several_runs(trained: Path, tmp_path: Path):
    for arguments in (
        ["compare", trained / "seed-1", trained / "seed-2", "--repeats", "5"],
        ["average", trained],
        ["report", trained],
        ["baseline", "lmf", *SHORT[:6], "--output", tmp_path],
    ):
        assert " %" in msekit(*arguments).stdout
        json.loads(msekit(*arguments, "--format", "json").stdout)


@pytest.mark.slow
def test_what_shows_before_it_runs(tmp_path: Path):
    dry = msekit("train", "--backbone", "tiny-llama", *SHORT, "--output", tmp_path, "--dry-run")
    assert "label trie: 4 labels" in dry.stdout
    assert "backbone: tiny-llama" in dry.stdout
    (tmp_path / "grid.yaml").write_text(
        "base: {backbone: tiny-llama, dataset: synthetic-erc}\ngrid: {optim.lr: [0.001, 0.002]}\n"
    )
    assert "lr=0.002" in msekit("sweep", tmp_path / "grid.yaml", "--dry-run").stdout
    assert len(json.loads(msekit("sweep", tmp_path / "grid.yaml", "--dry-run", "--format", "json").stdout)) == 2
    rows = ["reproduce", "table5", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--output", tmp_path]
    assert "MAG-tiny-llama" in msekit(*rows, "--dry-run").stdout
    assert json.loads(msekit(*rows, "--report", "--format", "json").stdout)["table"] == "table5"


def test_a_pipe_gets_whole_lines(own_cache: Path):
    """What a shell pipes into grep: one line per data set with all of its cells, however narrow the terminal is."""
    done = subprocess.run(
        [sys.executable, "-m", "msekit", "data", "list"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "40"},
    )
    (line,) = (line for line in done.stdout.splitlines() if "cherma" in line)
    assert all(cell in line for cell in ("erc", "zh", "惊奇", "1024 × 2048"))
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_every_command_that_shows_a_result_has_a_format():
    commands = typer.main.get_command(app).commands
    leaves = {**commands}
    for name in ("data", "backbone", "cache", "config"):
        leaves |= leaves.pop(name).commands
    without = {
        name
        for name, command in leaves.items()
        if not any("--format" in parameter.opts for parameter in command.params)
    }
    assert without == SILENT
