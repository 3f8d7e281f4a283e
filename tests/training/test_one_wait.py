"""A step is waited for once, when all of it has been launched; an evaluation's batch, when the next one has been."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from msekit import gpu
from msekit.distributed.accelerator import StopSignals
from msekit.evaluation import scoring
from msekit.reporter import Reporter
from msekit.settings.plan_runs import RunRequest, parse_seeds, plan_runs
from msekit.training import loop, parallel_seeds
from msekit.training.parallel_seeds import Together, collate, start
from msekit.training.signals import Asking

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
QUIET = Reporter(quiet=True)


class Reads(TorchDispatchMode):
    """Counts the operators that give the program what the device has computed, which a CPU has at once."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))


def runs_of(folder: Path, dataset: str, *overrides: str) -> Together:
    short = ("data.limit_train=16", "evaluation.bootstrap=0", *overrides)
    request = RunRequest("tiny-llama", dataset, output=folder, seeds=parse_seeds("1,2"), overrides=short)
    return start(plan_runs(request)[0], False, QUIET)


@pytest.mark.parametrize(
    ("dataset", "overrides"),
    [
        ("synthetic-erc", ()),
        ("synthetic-msa", ("adapter.name=mse", "loss.expected=1", "model.passes=plain", "optim.ema=0.5")),
        ("synthetic-erc", ("adapter.name=mag", "model.passes=plain", "model.dtype=fp16")),
    ],
    ids=["an opinion", "an objective and no prefix", "fp16"],
)
def test_nothing_is_read_before_all_is_launched(
    tmp_path: Path, own_cache: Path, dataset: str, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    together = runs_of(tmp_path, dataset, *overrides)
    runs, batches, counts = together.runs, (list(range(8)), list(range(8))), []
    for run in runs:
        run.adapter.train()
    together.step(runs, collate(runs, batches), [8, 8])  # the first pass makes what all share
    read_steps = loop.read_steps

    def counted(accelerator: Any, launched: list[Any]) -> list[Any]:
        counts.append((reads.count, len(launched)))
        return read_steps(accelerator, launched)

    for module in (loop, parallel_seeds):
        monkeypatch.setattr(module, "read_steps", counted)
    made = collate(runs, batches)
    with Reads() as reads:
        together.step(runs, made, [8, 8])
        runs[0].step(made[0], 8)
    assert counts == [(0, 2), (0, 1)]


def test_a_batch_s_scores_are_read_when_the_next_one_is_launched(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    together = runs_of(tmp_path, "synthetic-erc", "adapter.name=mse")
    events: list[str] = []
    edges_of, arrived = scoring.edges_of, gpu.OnItsWay.arrived

    def launched(models: Any, batch: Any) -> Any:
        events.append("launched")
        return edges_of(models, batch)

    def read(self: gpu.OnItsWay) -> Tensor:
        events.append("read")
        return arrived(self)

    monkeypatch.setattr(scoring, "edges_of", launched)
    monkeypatch.setattr(gpu.OnItsWay, "arrived", read)
    split = together.runs[0].parts.collators["valid"]
    models = [run.parts.model for run in together.runs]
    size = -(-len(split.split) // 3)
    with Reads() as reads:
        scores = scoring.score_together(models, split, size, together.accelerator, QUIET, "")
    assert events == ["launched", "launched", "read", "launched", "read", "read"]
    assert reads.count == 0
    assert len(scores) == 2


def test_a_process_that_is_alone_hears_a_signal_at_once_and_asks_nobody():
    with StopSignals() as signals:
        asking = Asking(SimpleNamespace(num_processes=1, device=torch.device("cuda")), signals)
        assert not asking()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asking()


def test_several_hear_what_was_the_answer_before():
    answers = iter([0.0, 0.5, 0.5])
    accelerator = SimpleNamespace(
        num_processes=2, device=torch.device("cpu"), reduce=lambda mine, _: torch.full_like(mine, next(answers))
    )
    asking = Asking(accelerator, StopSignals())
    assert [asking() for _ in range(3)] == [False, False, True]


def test_a_thread_that_is_not_the_main_one_may_train():
    """Only the main thread may say what a signal does."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with StopSignals() as signals:
                assert not signals.received
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == []
