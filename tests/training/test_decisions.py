"""A run folder's `config.yaml` says what was done: what the settings left open stands there as it was decided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from as_on_gpu import fp32_alone
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.planning.memory import EVALUATION_BATCH
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.settings.resolve import read_run_file, validated
from msekit.studies.evaluate import open_run
from msekit.training.build import load_frozen

TRAIN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "16", "--epochs", "1"]
TRAIN += ["--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]
QUIET = Reporter(quiet=True)


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decided")
    command(*TRAIN, "--output", folder, "--set", "model.dtype=auto")
    return folder / "seed-1111"


def written(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


@fp32_alone
def test_nothing_is_left_open(trained: Path):
    settings = written(trained)
    assert (settings["model"]["dtype"], settings["model"]["checkpointing"]) == ("fp32", "off")
    assert settings["evaluation"]["batch_size"] == EVALUATION_BATCH["cpu"]
    assert "auto" not in (trained / "config.yaml").read_text()
    assert validated(read_run_file(trained / "config.yaml")).seed == 1111


def test_what_was_asked_for_is_kept(tmp_path: Path):
    asked = ["--set", "model.checkpointing=on", "--set", "evaluation.batch_size=40", "--set", "model.dtype=bf16"]
    command(*TRAIN, "--output", tmp_path, *asked)
    settings = written(tmp_path / "seed-1111")
    assert (settings["model"]["dtype"], settings["model"]["checkpointing"]) == ("bf16", "on")
    assert settings["evaluation"]["batch_size"] == 40


@fp32_alone
def test_the_same_command_reuses_the_run_and_one_with_another_precision_is_refused(trained: Path):
    before = (trained / "report.json").stat().st_mtime_ns
    command(*TRAIN, "--output", trained.parent, "--resume")
    assert (trained / "report.json").stat().st_mtime_ns == before
    command(*TRAIN, "--output", trained.parent, "--resume", "--set", "model.dtype=fp32")
    with pytest.raises(MsekitError, match="other settings"):
        command(*TRAIN, "--output", trained.parent, "--resume", "--set", "model.dtype=bf16")


@pytest.mark.parametrize("together", [[], ["--parallel-seeds"]], ids=["alone", "parallel seeds"])
def test_the_same_command_goes_on_with_the_state(trained: Path, tmp_path: Path, together: list[str]):
    run = Path(shutil.copytree(trained, tmp_path / "seed-1111"))
    (run / "report.json").unlink()
    command(*TRAIN, "--output", tmp_path, "--resume", *together)
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (trained, run))
    assert first["metrics"] == second["metrics"]
    assert written(run) == written(trained) | {"output": str(run)}


@pytest.mark.parametrize(("trained_by", "scored_by"), [(8, 8), (100_000, EVALUATION_BATCH["cpu"])])
def test_another_machine_scores_as_many_at_a_time_as_it_has_room_for(
    trained: Path, tmp_path: Path, trained_by: int, scored_by: int
):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    settings = written(run)
    settings["evaluation"]["batch_size"] = trained_by
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    _, _, parts = open_run(run, ("test",), reporter=QUIET)
    assert parts.evaluation_batch == scored_by


def test_the_recipe_paper_is_not_departed_from_by_a_decision(trained: Path):
    from msekit.experiments.paper_table import _settings_apart

    config = validated(read_run_file(trained / "config.yaml"))
    assert not [line for line in _settings_apart(config, "erc") if "dtype" in line or "checkpointing" in line]


@fp32_alone
def test_a_dry_run_shows_the_decisions(tmp_path: Path):
    shown = command(*TRAIN, "--output", tmp_path / "none", "--dry-run")
    assert "checkpointing: 'off'" in shown
    assert "dtype: fp32" in shown


@pytest.mark.parametrize("override", ["model.quantization=nf4", "model.compile=true"])
def test_a_finished_runs_settings_serve_a_run_that_is_otherwise(trained: Path, override: str):
    """Where ways, layers and batches that fitted there do not fit."""
    file = trained / "config.yaml"
    runs, _ = plan_runs(RunRequest(run_file=str(file), output=Path("elsewhere"), overrides=(override,)))
    assert runs[0].model.passes == "auto"
    assert runs[0].model.checkpointing == "auto"
    assert runs[0].evaluation.batch_size is None
    assert runs[0].model.dtype == read_config(trained).model.dtype
    assert load_frozen("tiny-llama", runs[0].model, False).passes.uses
