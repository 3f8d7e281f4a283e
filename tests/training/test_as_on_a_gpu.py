"""Trained, resumed, evaluated and used as a GPU would: in bf16, with fused attention and padded masks.

What a whole run of the tests finds in this way, `make gpu-like` shows; this is the part that every run has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from as_on_gpu import computing_as_on_a_gpu
from safetensors.torch import load_file

from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.scoring import score_split
from msekit.inference.load import load_run
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import RunRequest, parse_seeds, plan_runs
from msekit.studies.evaluate import evaluate
from msekit.training.build import build
from msekit.training.loop import Run, train
from msekit.training.parallel_seeds import train_together

QUIET = Reporter(quiet=True)
SCORES_APART = 0.1
"""Of log-probabilities by another evaluation batch: twice what the layers' rounding makes of it here (.014 of classes,
.046 of intensities); the labels' logits are in fp32."""
ADAPTERS_APART = 2e-4
"""Of two runs' adapters after four steps whose passes round in another order: a tenth of what the rate moves."""


@pytest.fixture(autouse=True)
def as_on_a_gpu_here(monkeypatch: pytest.MonkeyPatch):
    computing_as_on_a_gpu(monkeypatch)


def plan(folder: Path, *overrides: str, seeds: str = "1", dataset: str = "synthetic-erc") -> list[RunConfig]:
    short = ("evaluation.bootstrap=0", "data.limit_train=32", "optim.epochs=2", "optim.lr=5e-4", *overrides)
    request = RunRequest("tiny-llama", dataset, output=folder, seeds=parse_seeds(seeds), overrides=short)
    return plan_runs(request)[0]


def difference(one: Path, other: Path) -> float:
    mine, theirs = (load_file(folder / "adapter.safetensors") for folder in (one, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_a_run_is_trained_evaluated_and_used_alike(tmp_path: Path, own_cache: Path, dataset: str):
    (config,) = plan(tmp_path, dataset=dataset)
    report = train(config, reporter=QUIET)
    assert report["dtype"] == "bfloat16"
    assert report["passes"]["used"] == ["prefix", "last-layer", "lean-parts"]
    assert report["passes"]["refused"]["written-out"] == "as on a GPU"
    again = evaluate(config.output, reporter=QUIET)
    assert again["dtype"] == "bfloat16"
    assert again["metrics"] == report["metrics"]
    plug_in = load_run(config.output)
    assert plug_in.backbone.model.dtype == torch.bfloat16
    answer = plug_in.predict("Well?", audio=np.ones((5, 16)))
    assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_stopped_and_resumed_ends_as_undisturbed(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    (whole,), (parts,) = plan(tmp_path / "whole"), plan(tmp_path / "parts")
    train(whole, reporter=QUIET)
    rate = Run.rate.fget

    def stopping(self: Run) -> float:
        if self.progress.step == 3:
            self.save()
            raise KeyboardInterrupt
        return rate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "rate", property(stopping))
        with pytest.raises(KeyboardInterrupt):
            train(parts, reporter=QUIET)
    train(parts, resume=True, reporter=QUIET)
    assert difference(whole.output, parts.output) == 0, "on one CPU bf16 too is the same bit for bit"


@pytest.mark.slow
def test_seeds_together_end_as_they_do_alone(tmp_path: Path, own_cache: Path):
    together, alone = plan(tmp_path / "together", seeds="1,2"), plan(tmp_path / "alone", seeds="1,2")
    list(train_together(together, reporter=QUIET))
    for mine, theirs in zip(together, alone, strict=True):
        train(theirs, reporter=QUIET)
        assert difference(mine.output, theirs.output) <= ADAPTERS_APART
    assert difference(together[0].output, together[1].output) > 10 * ADAPTERS_APART


@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_scores_do_not_depend_on_the_batch_and_no_label_ties(tmp_path: Path, own_cache: Path, dataset: str):
    (config,) = plan(tmp_path, dataset=dataset)
    parts = build(config, QUIET, ("train", "valid"))
    accelerator = accelerator_for(torch.device("cpu"))
    chosen, other = (
        score_split(parts.model, parts.collators["valid"], size, accelerator, QUIET, "").edges for size in (32, 7)
    )
    assert np.abs(other - chosen).max() <= SCORES_APART
    top = np.sort(parts.labels.log_probabilities(chosen), axis=1)[:, -2:]
    assert (top[:, 1] > top[:, 0]).all(), "two labels are the most probable"
