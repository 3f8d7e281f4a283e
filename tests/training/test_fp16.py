"""Training beside an LLM in fp16, as on a card without bf16: a scaled loss, and steps that overflow are skipped."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from msekit.distributed.accelerator import accelerator_for
from msekit.distributed.zero import Zero
from msekit.errors import MsekitError, UnfinishedRunError
from msekit.reporter import Reporter
from msekit.runs.progress import Progress
from msekit.settings.config import BackboneConfig, RunConfig
from msekit.settings.plan_runs import RunRequest, parse_seeds, plan_runs
from msekit.studies.evaluate import evaluate
from msekit.training import loss_scale
from msekit.training.build import build, load_frozen
from msekit.training.loop import Run, train
from msekit.training.loss_scale import MOST_IN_A_ROW, LossScale, goes_on
from msekit.training.parallel_seeds import train_together

QUIET = Reporter(quiet=True)
CPU = torch.device("cpu")
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
HALF_APART = 2e-2
"""How far an fp16 pass's gradient may be from fp32's, as a share of its norm: 20 roundings of 2^-11."""


def plan(folder: Path, *overrides: str, dataset: str = "synthetic-erc", seeds: str = "1") -> list[RunConfig]:
    short = ("evaluation.bootstrap=0", "evaluation.integrity=false", "data.limit_train=64", "optim.epochs=2")
    settings = ("model.dtype=fp16", *short, *overrides)
    return plan_runs(
        RunRequest("tiny-llama", dataset, recipe="kit", output=folder, seeds=parse_seeds(seeds), overrides=settings)
    )[0]


def begun(config: RunConfig) -> Run:
    parts = build(config, QUIET, ("train", "valid"))
    run = Run(config, parts, accelerator_for(CPU), QUIET)
    run.adapter.train()
    return run


def backward(run: Run) -> Tensor:
    return run.engine.backward(run.parts.collators["train"](list(range(16))), 1 / 16, True)


def gradient(run: Run) -> Tensor:
    return torch.cat([p.grad.flatten() for p in run.adapter.parameters() if p.grad is not None])


def trained(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter.safetensors")


def saved(folder: Path) -> dict[str, Tensor]:
    """The adapter as it stood last, AdamW's moments and the loss scale."""
    tensors = load_file(folder / "state" / "state.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("adapter.", "optim."))}


def adapter(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in saved(folder).items() if name.startswith("adapter.")}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def far(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference."""
    return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))


class Reads(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_the_llm_is_in_fp16_the_adapter_in_fp32_and_the_gradient_is_that_of_fp32(tmp_path, own_cache, dataset: str):
    runs = [begun(plan(tmp_path, f"model.dtype={dtype}", dataset=dataset)[0]) for dtype in ("fp16", "fp32")]
    half, whole = runs
    assert half.parts.backbone.model.dtype == torch.float16
    assert {p.dtype for p in half.adapter.parameters()} == {torch.float32}
    assert whole.engine.loss_scale is None
    half.engine.loss_scale.scale = torch.tensor(2.0**8)  # the first scale overflows on one of the sets
    for run in runs:
        run.adapter.eval()
        backward(run)
    half.engine.loss_scale.unscale(half.adapter.parameters())
    mine, exact = gradient(half), gradient(whole)
    assert float((mine - exact).norm() / exact.norm()) <= HALF_APART


def test_without_a_scale_small_gradients_are_lost(tmp_path, own_cache):
    """A loss a million times as small, as of a long batch's share: fp16 knows no number below 6e-8."""
    run = begun(plan(tmp_path)[0])
    run.adapter.eval()
    norms = {}
    for scale in (1.0, loss_scale.FIRST):
        run.engine.loss_scale.scale = torch.tensor(scale)
        run.engine.backward(run.parts.collators["train"](list(range(16))), 1e-7, True)
        run.engine.loss_scale.unscale(run.adapter.parameters())
        norms[scale] = float(gradient(run).norm())
        run.engine.optimizer.zero_grad()
    assert norms[1.0] < 0.5 * norms[loss_scale.FIRST]


def test_clipping_and_the_norm_know_no_scale(tmp_path, own_cache):
    run = begun(plan(tmp_path)[0])
    run.adapter.eval()
    norms = []
    for scale in (2.0**6, 2.0**10):
        run.engine.loss_scale.scale = torch.tensor(scale)
        backward(run)
        norms.append(float(run.engine.step(0.0)))
    assert norms[0] == pytest.approx(norms[1], rel=HALF_APART)


def test_a_step_that_overflows_changes_nothing_and_halves_the_scale(tmp_path, own_cache):
    run = begun(plan(tmp_path)[0])
    run.engine.loss_scale.scale = torch.tensor(2.0**40)
    before = {name: tensor.clone() for name, tensor in run.adapter.state_dict().items()}
    while run.progress.skipped < 5:
        outcome = run.step([run.parts.collators["train"](list(range(16)))], 16)
        assert math.isfinite(outcome.loss)
        assert run.progress.skipped_in_a_row == run.progress.skipped
    assert float(run.engine.loss_scale.scale) == 2.0**35
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.adapter.state_dict().items())
    run.engine.loss_scale.scale = torch.tensor(2.0**6)
    run.progress.step = 10  # five were taken: beyond the first of the warm-up, whose learning rate is zero
    assert math.isfinite(run.step([run.parts.collators["train"](list(range(16)))], 16).norm)
    assert (run.progress.skipped, run.progress.skipped_in_a_row) == (5, 0)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.adapter.state_dict().items())


def test_a_skipped_step_is_none_of_the_schedule(tmp_path, own_cache):
    """The first that is taken has rate zero, as the warm-up begins (`optim.learning_rate`)."""
    run = begun(plan(tmp_path, "optim.epochs=10")[0])
    first = run.rate
    run.progress.step, run.progress.skipped = 3, 3
    assert run.rate == first == 0
    run.progress.step = 5
    assert run.rate > 0


def test_the_scale_is_doubled_after_long_without_overflow(monkeypatch):
    monkeypatch.setattr(loss_scale, "LONG_ENOUGH", 3)
    scale, seen = LossScale(CPU), []
    for overflow in (0, 0, 0, 0, 1, 0, 0, 0):
        scale.update(torch.tensor(float(overflow)))
        seen.append(float(scale.scale) / loss_scale.FIRST)
    assert seen == [1, 1, 2, 2, 1, 1, 1, 2]


def test_what_no_scale_mends_ends_the_run():
    progress = Progress()
    assert all(goes_on(progress, 1.0, math.inf, scaled=True) for _ in range(MOST_IN_A_ROW))
    assert not goes_on(progress, 1.0, math.inf, scaled=True)
    assert not goes_on(Progress(), math.nan, math.nan, scaled=True)
    assert not goes_on(Progress(), 1.0, math.inf, scaled=False)
    assert goes_on(progress, 1.0, 1.0, scaled=True)
    assert progress.skipped == MOST_IN_A_ROW


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, own_cache):
    run = begun(plan(tmp_path)[0])
    with torch.no_grad():
        next(run.adapter.parameters()).fill_(math.nan)
    with pytest.raises(UnfinishedRunError, match="loss became nan"):
        run.step([run.parts.collators["train"](list(range(16)))], 16)


def test_from_the_batch_to_the_step_nothing_is_read_back(tmp_path, own_cache):
    run = begun(plan(tmp_path)[0])
    backward(run)
    run.engine.step(1e-3)
    batch = run.parts.collators["train"](list(range(8)))
    with Reads() as reads:
        run.engine.backward(batch, 1 / 8, True)
        run.engine.step(1e-3)
    assert reads.count == 0


@pytest.mark.slow
def test_it_learns_and_says_how_many_steps_were_skipped(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**30)
    (config,) = plan(tmp_path, "optim.epochs=3", "optim.lr=5e-3", "data.limit_train=320")
    report = train(config, reporter=QUIET)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert report["dtype"] == "float16"
    assert report["skipped_steps"] >= 8
    assert lines[-1]["skipped_steps"] == report["skipped_steps"] < 60
    assert lines[-1]["train_loss"] < 0.9 * lines[0]["train_loss"]
    in_fp32 = evaluate(config.output, reporter=QUIET)
    assert in_fp32["dtype"] == "float32", "a CPU that would imitate fp16 is spared it"
    assert in_fp32["metrics"]["wf1"] == pytest.approx(report["metrics"]["wf1"], abs=0.05)


@pytest.mark.slow
def test_stopped_and_resumed_ends_as_undisturbed(tmp_path, own_cache, monkeypatch):
    """While the scale still falls, and later rises: it goes on from where it stood."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**26)
    monkeypatch.setattr(loss_scale, "LONG_ENOUGH", 3)
    (whole,), (parts,) = plan(tmp_path / "whole", "optim.batch_size=8"), plan(tmp_path / "parts", "optim.batch_size=8")
    reports = [train(whole, reporter=QUIET)]
    for stop_at in (3, 11):
        rate, steps = Run.rate.fget, iter(range(100))

        def stopping(self: Run, rate=rate, steps=steps, last=stop_at) -> float:
            if self.progress.step == last and next(steps) == 0:
                self.save()
                raise KeyboardInterrupt
            return rate(self)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "rate", property(stopping))
            with pytest.raises(KeyboardInterrupt):
                train(parts, resume=True, reporter=QUIET)
        assert saved(parts.output)["optim.loss_scale.scale"] < 2.0**26
    reports.append(train(parts, resume=True, reporter=QUIET))
    assert reports[0]["skipped_steps"] == reports[1]["skipped_steps"] > 3
    ended, other = saved(whole.output), saved(parts.output)
    assert ended.keys() == other.keys()
    assert apart(ended, other) == 0
    assert apart(trained(whole.output), trained(parts.output)) == 0


@pytest.mark.slow
def test_seeds_together_end_as_they_do_alone(tmp_path, own_cache, monkeypatch):
    """Each has a scale of its own, and skips its own steps."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**22)
    joined, alone = (plan(tmp_path / name, seeds="1,2,3") for name in ("joined", "alone"))
    reports = list(train_together(joined, reporter=QUIET))
    for mine, theirs, report in zip(joined, alone, reports, strict=True):
        other = train(theirs, reporter=QUIET)
        assert report["skipped_steps"] == other["skipped_steps"] > 0
        assert apart(adapter(mine.output), adapter(theirs.output)) <= 1e-3
        assert torch.equal(*(saved(config.output)["optim.loss_scale.scale"] for config in (mine, theirs)))
    assert apart(trained(joined[0].output), trained(joined[1].output)) > 1e-2


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_train_as_one(tmp_path, own_cache):
    """They skip what one process skips; each reads half of a batch, so their adapters differ by fp16's roundings."""
    (alone,), (in_fp32,) = plan(tmp_path / "one"), plan(tmp_path / "fp32", "model.dtype=fp32")
    train(alone, reporter=QUIET)
    train(in_fp32, reporter=QUIET)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "launch/cpu2.yaml", "-m", "msekit"]
    asked = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "kit", "--seeds", "1"]
    settings = ["model.dtype=fp16", "evaluation.bootstrap=0", "evaluation.integrity=false"]
    asked += ["--limit-train", "64", "--epochs", "2", *(part for text in settings for part in ("--set", text))]
    done = subprocess.run(
        [*launcher, *asked, "--output", str(tmp_path / "two")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    two = tmp_path / "two" / "seed-1"
    one = adapter(alone.output)
    assert apart(one, adapter(two)) <= 1e-3
    assert far(one, adapter(two)) <= 0.05 * far(one, adapter(in_fp32.output))
    skipped = [json.loads((folder / "report.json").read_text())["skipped_steps"] for folder in (alone.output, two)]
    assert skipped[0] == skipped[1] > 0
    assert torch.equal(*(saved(folder)["optim.loss_scale.scale"] for folder in (alone.output, two)))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_is_refused_with_a_way_out(monkeypatch, stage: int):
    monkeypatch.setattr(Zero, "asked_for", lambda: Zero(stage))
    with pytest.raises(MsekitError, match=r"fp16.*--launch ddp"):
        load_frozen("tiny-llama", BackboneConfig(dtype="fp16"), False)
