"""Two short runs on the tiny backbone, trained once, and the rows they were tested on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.readers.published import Row
from msekit.data.readers.synthetic import synthetic_rows


def trained(folder: Path, dataset: str, *extra: str) -> Path:
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", dataset, "--limit-train", "64", "--epochs", "1"]
    arguments += ["--set", "evaluation.bootstrap=20", "--output", str(folder), *extra]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def erc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("plug") / "erc", "synthetic-erc") / "seed-1111"


@pytest.fixture(scope="session")
def msa_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("plug") / "msa", "synthetic-msa") / "seed-1111"


@pytest.fixture(scope="session")
def erc_rows() -> list[Row]:
    return list(synthetic_rows("synthetic-erc", "test"))


@pytest.fixture(scope="session")
def msa_rows() -> list[Row]:
    return list(synthetic_rows("synthetic-msa", "test"))


@pytest.fixture(scope="session")
def erc_lines(erc_run: Path) -> list[dict]:
    """The run's own test predictions."""
    return [json.loads(line) for line in (erc_run / "predictions-test.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def msa_lines(msa_run: Path) -> list[dict]:
    return [json.loads(line) for line in (msa_run / "predictions-test.jsonl").read_text("utf-8").splitlines()]
