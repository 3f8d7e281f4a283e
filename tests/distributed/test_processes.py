"""What one of several processes knows and does, as far as one process can show it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from msekit import __version__
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.data.batches.batch import evaluation_batches
from msekit.distributed.accelerator import StopSignals, accelerator_for, naming_lost_processes
from msekit.distributed.processes import LAUNCHED, already_launched, hand_over, is_main_process
from msekit.errors import LostProcessError, MsekitError
from msekit.reporter import Reporter
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.training.loop import train


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_schedulers_signal_asks_and_does_not_kill(number: signal.Signals):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.received
        os.kill(os.getpid(), number)
        assert signals.received
    assert signal.getsignal(number) is before


def test_a_broken_connection_becomes_a_message(tmp_path: Path):
    broken = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer\nmore")
    two, one = (SimpleNamespace(num_processes=n, process_index=1 if n == 2 else 0) for n in (2, 1))
    with pytest.raises(LostProcessError, match=r"process 1 lost contact.*closed by peer \("):  # noqa: SIM117
        with naming_lost_processes(two, tmp_path):
            raise broken
    for accelerator, error in ((one, broken), (two, RuntimeError("out of memory"))):
        with pytest.raises(RuntimeError, match=r"gloo|memory") as raised, naming_lost_processes(accelerator, tmp_path):
            raise error
        assert raised.value is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("NCCL communicator was aborted on rank 1."),
        torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:1290, remote process exited"),
    ],
    ids=["aborted", "backend"],
)
def test_so_does_one_over_nccl(error: RuntimeError, tmp_path: Path):
    two = SimpleNamespace(num_processes=2, process_index=1)
    with pytest.raises(LostProcessError, match="lost contact"), naming_lost_processes(two, tmp_path):
        raise error


@pytest.mark.parametrize("processes", [1, 2])
def test_ddp_sends_no_buffers_and_keeps_gradients_once(processes: int, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: asked.update(options))
    accelerator_for(torch.device("cpu"))
    given = {key: value for handler in asked["kwargs_handlers"] for key, value in handler.to_kwargs().items()}
    if processes == 1:
        assert given == {}
    else:
        assert given["broadcast_buffers"] is False
        assert given["gradient_as_bucket_view"] is True


@pytest.mark.parametrize("samples", [1, 2, 15, 16, 17, 33])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_the_first_process_has_the_most_batches_to_score(samples: int, world: int):
    """The others then take part in its last round for nothing: sharded weights are gathered by all or none."""
    lengths = np.arange(samples), np.arange(samples)
    shares = [evaluation_batches(*lengths, 4, rank, world) for rank in range(world)]
    assert len(shares[0]) == max(map(len, shares))
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(samples))


def test_an_error_is_left_to_our_launcher_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    assert is_main_process()
    assert not already_launched()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    assert already_launched()
    assert not is_main_process()
    assert not hand_over("no such file"), "torchrun by hand: the process prints it"
    monkeypatch.setenv(LAUNCHED, "1")
    assert hand_over("no such file")
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "no such file"


PROGRAM = """
import atexit
from torch import distributed
from msekit.cli.entry import run

distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
atexit.register(print, "the program's end")
try:
    run()
except SystemExit as end:
    print(end.code, distributed.is_initialized())
"""


@pytest.mark.parametrize(
    ("word", "said"),
    [("--version", f"msekit {__version__}\nthe program's end\n"), ("no-such-command", "2 True\nthe program's end\n")],
    ids=["well", "an error"],
)
def test_a_process_that_went_well_does_not_wait_for_gloos_threads(word: str, said: str):
    """They abort a process whose interpreter shuts down under them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, word],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said


def test_a_checkpoint_is_built_before_processes_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers writes it in the first process alone: built by another, the cache held a tokenizer for good."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path / "cache"))
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        with pytest.raises(MsekitError, match="backbone fetch"):
            tiny_llama_folder()
    finally:
        torch.distributed.destroy_process_group()
    folder = tmp_path / "cache" / "backbones" / "tiny-llama-1"
    assert not folder.exists()
    folder.mkdir()  # as earlier versions left it
    (folder / "tokenizer.json").write_text("{}")
    (config,), _ = plan_runs(RunRequest("tiny-llama", "synthetic-erc", output=tmp_path / "run"))
    monkeypatch.setattr("msekit.training.loop.accelerator_for", lambda *_: pytest.exit("joined"))
    with pytest.raises(pytest.exit.Exception, match="joined"):
        train(config, reporter=Reporter(quiet=True))
    assert {"config.json", "model.safetensors"} <= {file.name for file in folder.iterdir()}
