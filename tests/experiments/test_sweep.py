"""`msekit sweep`: the grid, one queue, failures kept and retried once, finished runs reused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from msekit.errors import MsekitError
from msekit.experiments.grid import read_grid, slurm_array
from msekit.experiments.sweep import Sweep, summarise

BASE = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "data.limit_train": 16, "optim.epochs": 1}
BASE |= {"evaluation.bootstrap": 0}


def grid_file(folder: Path, **parts: object) -> Path:
    file = folder / "rates.yaml"
    file.write_text(yaml.safe_dump({"output": str(folder / "runs"), "base": BASE} | parts, sort_keys=False))
    return file


def test_every_combination_is_one_run(tmp_path: Path):
    output, jobs = read_grid(grid_file(tmp_path, grid={"seed": [1, 2], "optim.lr": [0.001, 0.002]}))
    assert output == tmp_path / "runs"
    assert [job.name for job in jobs] == ["seed=1,lr=0.001", "seed=1,lr=0.002", "seed=2,lr=0.001", "seed=2,lr=0.002"]
    assert jobs[1].run == output / "seed=1,lr=0.002" / "seed-1"
    assert jobs[1].arguments[:4] == ["--backbone", "tiny-llama", "--dataset", "synthetic-erc"]
    assert "optim.lr=0.002" in jobs[1].arguments


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"grid": {"optim.rate": [1]}}, r"optim\.rate"),
        ({"grid": {"optim.lr": 3}}, "not a list"),
        ({"grid": {}}, "needs `grid:`"),
        ({"grid": {"seed": [1]}, "bass": {}}, "Did you mean base"),
        ({"grid": {"seed": [1, 1]}}, "the same"),
        ({"grid": {"dataset": ["none-such"]}}, "none-such"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(tmp_path: Path, parts: dict, said: str):
    with pytest.raises(MsekitError, match=said):
        read_grid(grid_file(tmp_path, **parts))
    assert not (tmp_path / "runs").exists()


def test_a_slurm_array_has_one_task_per_run(tmp_path: Path):
    file = grid_file(tmp_path, grid={"seed": [1, 2, 3]})
    output, jobs = read_grid(file)
    script = slurm_array(file, jobs, output)
    assert "#SBATCH --array=0-2" in script
    assert f'msekit sweep {file} --only "$SLURM_ARRAY_TASK_ID"' in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_failures_are_retried_once_and_kept_and_finished_runs_reused(tmp_path: Path):
    file = grid_file(tmp_path, grid={"seed": [1, 2]})
    broken = tmp_path / "runs" / "seed=2"
    broken.mkdir(parents=True)
    (broken / "seed-2").touch()  # where the run's folder should go
    command = [sys.executable, "-m", "msekit", "sweep", str(file), "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    runs = {run["name"]: run for run in json.loads((tmp_path / "runs" / "summary.json").read_text())["runs"]}
    assert (runs["seed=1"]["state"], runs["seed=1"]["attempts"]) == ("finished", 1)
    assert (runs["seed=2"]["state"], runs["seed=2"]["attempts"]) == ("failed", 2)
    assert "the output is a file" in runs["seed=2"]["problem"]
    again = Sweep(read_grid(file)[1], slots=[])
    again.start()
    assert [job.state for job in again.jobs] == ["finished", "waiting"]
    (mean,) = summarise(again.jobs)["means"]
    assert mean["seeds"] == 1
    changed = grid_file(tmp_path, base=BASE | {"optim.lr": 0.1}, grid={"seed": [1, 2]})
    with pytest.raises(MsekitError, match="other settings"):
        read_grid(changed)
