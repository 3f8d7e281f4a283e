"""What is in `launch/`, and what the launcher makes of it and of how its processes end; nothing is started here."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from msekit.distributed.launch import Where, cause_of, find_launch_file, interface_to, launcher_options
from msekit.distributed.zero import Zero, check_sharding
from msekit.errors import MsekitError

LAUNCH = Path(__file__).parents[2] / "launch"
FILES = sorted(LAUNCH.rglob("*.yaml"))
SCRIPTS = [LAUNCH / "slurm.sbatch", LAUNCH / "torchrun-elastic.sh"]


@dataclass
class Failure:
    """The parts of torch's ProcessFailure that are read."""

    exitcode: int
    message: str = ""
    error_file: str = "none"
    pid: int = 4711


def test_all_of_them_are_here():
    names = {"ddp", "zero1", "zero2", "zero3", "zero3-offload", "cpu2", "multinode"}
    assert {file.stem for file in FILES} == names
    assert set(LAUNCH.iterdir()) == {*FILES, *SCRIPTS}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_loads_and_says_how_to_use_it(file: Path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command

    config = load_config_from_file(str(file))
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"msekit train --launch {file.stem}" in header
    assert f"accelerate launch --config_file launch/{file.name}" in header
    machines = config.num_machines
    where = Where(2 * machines, machines, 0, "localhost:29500" if machines > 1 else None)
    options, _, _ = _validate_launch_command(launcher_options(file, where, ["train", "--seeds", "1"]))
    assert options.num_processes == 2 * machines
    assert (options.training_script, options.training_script_args) == ("msekit", ["train", "--seeds", "1"])
    assert options.use_deepspeed == file.stem.startswith("zero")
    if options.use_deepspeed:
        assert options.zero_stage == int(file.stem.removeprefix("zero")[0])
    assert "SIGUSR1" in options.signals_to_handle


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_sound_and_says_how_to_use_it(script: Path):
    subprocess.run(["bash", "-n", script], check=True)
    assert f"launch/{script.name}" in script.read_text().split("set -")[0]


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (1, False)])
def test_the_slurm_job_is_requeued_exactly_when_a_signal_stopped_it(tmp_path: Path, code: int, requeued: bool):
    """SLURM's own commands are stood in for: `srun` ends with a code after the job was signalled."""
    for name, body in {"srun": f"sleep 0.4; exit {code}", "scontrol": f'echo "$@" >> {tmp_path}/said'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_ID": "7"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.Popen(["bash", SCRIPTS[0], "ddp"], env=os.environ | environment | path)
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(timeout=0.2)
    job.terminate()
    assert job.wait(timeout=10) == code
    assert ("requeue 7" in (tmp_path / "said").read_text()) == requeued


def test_what_cannot_be_launched_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MsekitError, match="Did you mean zero"):
        find_launch_file("zero33")
    ddp = LAUNCH / "ddp.yaml"
    with pytest.raises(MsekitError, match="3 processes cannot be spread evenly over 2 machines"):
        launcher_options(ddp, Where(3, 2, 0, "localhost:1"), [])
    with pytest.raises(MsekitError, match="--main-address HOST:PORT"):
        launcher_options(ddp, Where(2, 2, 1), [])
    with pytest.raises(MsekitError, match="Count from 0"):
        launcher_options(ddp, Where(2, 2, 2, "localhost:1"), [])
    with pytest.raises(MsekitError, match=r"cannot be reached"):
        interface_to("no.such.host.invalid", 29500)
    assert interface_to("127.0.0.1", 29500) == "lo"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(MsekitError, match="which has 2 GPUs"):
        launcher_options(ddp, Where(4), [])
    assert launcher_options(ddp, Where(), []).num_processes == 2


def test_the_process_that_failed_first_is_named(tmp_path: Path):
    said = tmp_path / "error.json"
    said.touch()
    killed = cause_of({0: Failure(76, "process 0 lost contact", str(said)), 1: Failure(-9)})
    assert killed.exit_code == 1
    assert "process 1 (pid 4711) was killed by SIGKILL" in str(killed)
    mistake = cause_of({0: Failure(-15), 1: Failure(2, "no such file", str(said))})
    assert (mistake.exit_code, str(mistake)) == (2, "no such file")
    crash = cause_of({0: Failure(1), 1: Failure(-15)})
    assert crash.exit_code == 1
    assert "process 0 (pid 4711) failed with exit code 1" in str(crash)
    lost = cause_of({1: Failure(76, "process 1 lost contact", str(said))})
    assert (lost.exit_code, str(lost)) == (1, "process 1 lost contact")
    assert cause_of({0: Failure(75), 1: Failure(75)}).exit_code == 75


def test_a_process_that_nccl_aborts_is_not_the_one_that_failed_first():
    assert "process 1 (pid 4711) was killed by SIGKILL" in str(cause_of({0: Failure(-6), 1: Failure(-9)}))
    assert "process 2 (pid 4711) failed with exit code 1" in str(cause_of({0: Failure(-6), 2: Failure(1)}))
    aborted = cause_of({0: Failure(-15), 1: Failure(-6)})
    assert aborted.exit_code == 1
    assert "process 1 (pid 4711) aborted" in str(aborted)
    assert "NCCL" in str(aborted)


def test_what_a_configuration_says_about_zero_reaches_deepspeed(monkeypatch: pytest.MonkeyPatch):
    assert Zero.asked_for() is None
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "cpu")
    zero = Zero.asked_for()
    assert zero == Zero(3, "none", "cpu")
    assert zero.backbone_settings("bf16")["bf16"] == {"enabled": True}
    assert zero.backbone_settings("bf16")["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert zero.adapter_settings(None)["zero_optimization"]["stage"] == 2
    with pytest.raises(MsekitError, match=r"ZeRO-3 cannot load nf4 weights in shards.*--launch zero2 or ddp"):
        check_sharding("nf4")


def test_offloading_is_what_the_file_says():
    section = yaml.safe_load((LAUNCH / "zero3-offload.yaml").read_text())["deepspeed_config"]
    assert (section["offload_param_device"], section["offload_optimizer_device"]) == ("cpu", "cpu")
