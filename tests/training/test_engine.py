"""The optimiser step: nothing waits for the device on the way, and gradients that are not finite change nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from msekit.distributed.accelerator import accelerator_for
from msekit.reporter import Reporter
from msekit.settings.config import OptimConfig
from msekit.settings.resolve import resolve
from msekit.training.build import build
from msekit.training.engine import PlainEngine, ZeroEngine
from msekit.training.loop import Run

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
"""Operators that return to the program what the device has computed, and so wait for it."""


class Reads(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))


@pytest.fixture
def run(own_cache: Path) -> Run:
    given = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "none"}
    config = resolve(given, task="erc", overrides=["optim.lr=5e-3"])
    parts = build(config, Reporter(quiet=True), ("train",))
    run = Run(config, parts, accelerator_for(torch.device("cpu")), Reporter(quiet=True))
    run.adapter.train()
    return run


def test_making_batches_ahead_leaves_the_weights_alone(run: Run, monkeypatch: pytest.MonkeyPatch):
    """A thread makes them; under ZeRO-3 even to look at a weight is a collective call, out of step with the others'."""

    def touched(*_: object) -> None:
        raise AssertionError("a weight was looked at")

    monkeypatch.setattr(run.parts.backbone.model, "get_input_embeddings", touched)
    monkeypatch.setattr(run.parts.backbone.model, "parameters", touched)
    assert len(run.collate([0, 1])[0].label) == 2


def backward(run: Run, samples: range) -> Tensor:
    return run.engine.backward(run.parts.collators["train"](list(samples)), 1 / len(samples), True)


def state(run: Run) -> dict[str, Tensor]:
    tensors = {**run.adapter.state_dict(), **run.engine.moments()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_from_the_batch_to_the_step_nothing_is_read_back(run: Run, attention: str):
    run.parts.backbone.model.set_attn_implementation(attention)
    backward(run, range(4))  # the first pass tries what the architecture takes
    batch = run.parts.collators["train"](list(range(8)))
    with Reads() as reads:
        loss = run.engine.backward(batch, 1 / 8, True)
        norm = run.engine.step(1e-3)
    assert reads.count == 0
    with reads:
        assert float(norm) > 0
        assert float(loss) > 0
    assert reads.count == 2, "reads are seen"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False], ids=["at once", "after a step"])
def test_gradients_that_are_not_finite_change_nothing(run: Run, value: float, first: bool):
    if not first:
        backward(run, range(8))
        assert run.engine.step(5e-3).isfinite()
    before = state(run)
    backward(run, range(8, 16))
    next(run.adapter.parameters()).grad.view(-1)[0] = value
    assert not run.engine.step(5e-3).isfinite()
    after = state(run)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(not tensor.any() for name, tensor in after.items() if name not in before), "moments begin at zero"
    backward(run, range(8, 16))
    assert run.engine.step(5e-3).isfinite()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.adapter.state_dict().items())


def test_a_restored_optimiser_has_its_step_where_the_parameters_are():
    """A GPU's fused kernel takes no number of steps from main memory, and a saved state comes from there."""
    with FakeTensorMode():
        model = nn.Module()
        model.adapter = nn.LayerNorm(3, device="cuda")  # one that draws no random numbers
        model.backbone = SimpleNamespace(model=SimpleNamespace(dtype=torch.float32))
        as_it_is = SimpleNamespace(num_processes=1, prepare=lambda module: module)
        engine = PlainEngine(model, as_it_is, OptimConfig())
        for parameter in model.adapter.parameters():
            parameter.grad = torch.zeros_like(parameter)
        engine.step(1e-3)
        adapter, moments = (
            {name: tensor.detach().cpu() for name, tensor in state.items()}
            for state in (model.adapter.state_dict(), engine.moments())
        )
        engine.adapter.load_state_dict = lambda state: None  # copies from main memory, for which fake ones have none
        engine.restore(adapter, moments)
        states = list(engine.optimizer.state.values())
        assert len(states) == 2
        assert {tensor.device.type for state in states for tensor in state.values()} == {"cuda"}
        assert {state["step"].dtype for state in states} == {torch.float32}


def test_zero_too_has_its_step_where_its_part_of_the_parameters_is(monkeypatch: pytest.MonkeyPatch):
    deepspeed = pytest.importorskip("deepspeed.utils")
    monkeypatch.setattr(deepspeed, "safe_set_full_optimizer_state", lambda *_: None)
    with FakeTensorMode():
        flat = nn.Parameter(torch.zeros(6, device="cuda"))
        engine = ZeroEngine.__new__(ZeroEngine)
        engine.adapter = nn.Module()
        engine.base = torch.optim.AdamW([flat], fused=True)
        engine.optimizer = SimpleNamespace(refresh_fp32_params=list, _lazy_init_hp_params_optimizer_state=list)
        engine.restore({}, {"step.weight": torch.tensor(1.0)})
        assert engine.base.state[flat]["step"].device.type == "cuda"
