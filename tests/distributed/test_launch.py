"""Several processes through the real launcher on a CPU: nothing changes, whatever dies, stops or is resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from msekit.reporter import Reporter
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.studies.evaluate import evaluate
from msekit.training.loop import train
from msekit.yaml_file import read_mapping

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
REPOSITORY = Path(__file__).parents[2]
RUN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "155", "--epochs", "2"]
RUN += ["--set", "optim.lr=5e-4", "--set", "evaluation.bootstrap=0"]  # 20 steps
RUN += ["--set", "optim.opinion_samples=1", "--set", "evaluation.integrity=false"]  # the fewest epochs and passes
OFTEN = ["--set", "save_minutes=0.0001"]
LIMIT_S = 120


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command as a process group of its own, of which nothing is left afterwards."""
    command = [sys.executable, "-m", "msekit", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    family = [psutil.Process(process.pid)]
    try:
        yield process
    finally:
        if process.poll() is None:
            family += family[0].children(recursive=True)
            for member in reversed(family):
                member.kill()
            process.wait()


def run(*arguments: object, code: int = 0) -> str:
    """Run to the end; what it said."""
    with started(*arguments) as process:
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == code, said
    return said


def after_first_state(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until the run has saved a state."""
    deadline = time.monotonic() + LIMIT_S
    while not (folder / "seed-1111" / "state" / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def adapter_difference(one: Path, other: Path) -> float:
    mine, theirs = (load_file(folder / "seed-1111" / "adapter.safetensors") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("one")
    run(*RUN, "--output", folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run of two processes, started as the README says, by hand."""
    folder = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "launch/cpu2.yaml", "-m", "msekit"]
    done = subprocess.run(
        [*launcher, *RUN, "--output", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run folder:") == 1, "one process speaks"
    return folder


def test_two_processes_give_the_same_adapter_as_one(one: Path, two: Path, tmp_path: Path):
    """The global batch decides, not how it is spread: 1 x 16, 2 x 8, 1 x 8 accumulated twice."""
    run(*RUN, "--output", tmp_path, "--set", "optim.accumulation=2")
    reports = [json.loads((folder / "seed-1111" / "report.json").read_text()) for folder in (one, two, tmp_path)]
    decided = [read_mapping(folder / "seed-1111" / "config.yaml", "run file") for folder in (one, two)]
    assert decided[0] == decided[1] | {"output": decided[0]["output"]}
    for folder, report in zip((two, tmp_path), reports[1:], strict=True):
        assert adapter_difference(one, folder) <= 1e-5
        assert report["samples"] == 320
        assert report["metrics"] == reports[0]["metrics"]


def test_a_killed_process_ends_the_job_and_resuming_gives_the_undisturbed_adapter(two: Path, tmp_path: Path):
    with started(*RUN, *OFTEN, "--output", tmp_path, "--launch", "cpu2") as process:
        after_first_state(process, tmp_path)
        workers = psutil.Process(process.pid).children()
        (victim,) = (worker for worker in workers if worker.environ()["RANK"] == "1")
        victim.kill()
        killed = time.monotonic()
        said = process.communicate(timeout=LIMIT_S)[1]
    assert time.monotonic() - killed < 60
    assert process.returncode == 1, said
    assert f"process 1 (pid {victim.pid}) was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    assert not (tmp_path / "seed-1111" / "report.json").exists()
    assert "resuming after epoch 0" in run(*RUN, "--output", tmp_path, "--launch", "cpu2", "--resume")
    files = [folder / "seed-1111" / "adapter.safetensors" for folder in (two, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ZeRO-2 run that a scheduler's signal stopped in its first epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with started(*RUN, *OFTEN, "--output", folder, "--launch", "zero2", "--num-processes", 2) as process:
        after_first_state(process, folder)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 75, said
    assert "stopped by SIGUSR1" in said
    return folder


@pytest.mark.parametrize("launch", [[], ["--launch", "zero1", "--num-processes", "2"]], ids=["one", "zero1"])
def test_a_stopped_zero_run_goes_on_in_one_process_or_under_another_stage(
    one: Path, stopped: Path, tmp_path: Path, launch: list[str]
):
    folder = Path(shutil.copytree(stopped, tmp_path / "copy"))
    assert "resuming after epoch 0" in run(*RUN, "--output", folder, *launch, "--resume")
    assert adapter_difference(one, folder) <= 1e-5
    states = [load_file(run / "seed-1111" / "state" / "state.safetensors") for run in (one, folder)]
    assert states[0].keys() == states[1].keys()
    moments = [name for name in states[0] if name.startswith("optim.")]
    assert all((states[0][name] - states[1][name]).abs().max() <= 1e-6 for name in moments)


def test_zero3_shards_the_backbone_and_saves_the_same_few_megabytes(one: Path, tmp_path: Path):
    """Layers recomputed, and each process's share in two parts besides."""
    more = ["--num-processes", 2, "--set", "model.checkpointing=on", "--set", "optim.accumulation=2"]
    said = run(*RUN, "--output", tmp_path, "--launch", "zero3", *more)
    assert "each process holds 53,600 of the backbone's 107,200 parameters" in said
    assert adapter_difference(one, tmp_path) <= 1e-5
    for name in ("adapter.safetensors", "state/state.safetensors"):
        sizes = [(folder / "seed-1111" / name).stat().st_size for folder in (one, tmp_path)]
        assert abs(sizes[0] - sizes[1]) < 4096, name
    reported = json.loads((tmp_path / "seed-1111" / "report.json").read_text())
    assert evaluate(tmp_path)["metrics"] == reported["metrics"], "one process loads it"


def test_two_machines_and_a_cut_cable():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.two_machines", "--only", "cut"],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * LIMIT_S,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["cut"]
    assert found["unfinished"]
    for end in found["ends"]:
        assert end["code"] == 1
        assert "lost contact" in end["said"]
        assert end["after_s"] < found["timeout_s"] + 60
    assert found["resumed"] <= 1e-5


def test_processes_stop_together_when_patience_runs_out_on_an_8_bit_backbone(tmp_path: Path, own_cache):
    short = ["optim.batch_size=4", "optim.patience=1", "optim.epochs=4", "optim.lr=1e-3", "evaluation.integrity=false"]
    short += ["data.limit_train=16", "evaluation.bootstrap=0", "model.quantization=int8", "optim.opinion_samples=1"]
    (config,), _ = plan_runs(RunRequest("tiny-llama", "synthetic-erc", output=tmp_path / "one", overrides=tuple(short)))
    alone = train(config, reporter=Reporter(quiet=True))
    assert alone["epochs"] < 4
    settings = [part for setting in short for part in ("--set", setting)]
    run(*RUN[:5], *settings, "--output", tmp_path / "two", "--launch", "zero1", "--num-processes", 2)
    together = json.loads((tmp_path / "two" / "seed-1111" / "report.json").read_text())
    assert together["epochs"] == alone["epochs"]
    assert together["metrics"] == alone["metrics"]
    assert adapter_difference(tmp_path / "one", tmp_path / "two") <= 1e-5


def test_processes_stop_together_on_a_loss_that_is_not_finite(tmp_path: Path):
    wild = ["--limit-train", "32", "--set", "optim.lr=1e30", "--set", "optim.clip_norm=null"]
    wild += ["--set", "optim.opinion_samples=1"]
    said = run(*RUN[:5], *wild, "--output", tmp_path, "--launch", "cpu2", code=2)
    assert said.count("error:") == 1, said
    assert "became" in said
    assert "optim.lr" in said
    assert not (tmp_path / "seed-1111" / "report.json").exists()
