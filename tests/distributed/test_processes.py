"""What one of several processes knows and does, as far as one process can show it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from msekit.data.batches.batch import evaluation_batches
from msekit.distributed.accelerator import StopSignals, accelerator_for, naming_lost_processes
from msekit.distributed.processes import LAUNCHED, already_launched, hand_over, is_main_process
from msekit.errors import LostProcessError


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
