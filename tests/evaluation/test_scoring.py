"""Scores of a split: the loss they imply, and a collapse that is noticed whatever the estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msekit.data.catalogue import DATASETS
from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.scoring import Scores, score_split
from msekit.model.labels import LabelSpace
from msekit.planning.plan_run import plan_run
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training.build import build


def scores_for(values: list[float]) -> Scores:
    """Nearly all of each sample's mass on one label, a little differently for each."""
    labels = LabelSpace(DATASETS["mosei"], lambda text: [ord(character) for character in text], 0)
    chosen = labels.trie.paths[labels.indices(np.array(values))]
    noise = np.random.default_rng(0).uniform(0, 0.01, chosen.shape)
    return Scores(np.where(chosen > 0, -0.01, -9.0) - noise, np.array(values), labels)


@pytest.mark.parametrize("estimate", ["greedy", "argmax", "mean", "median"])
def test_a_collapse_is_noticed(estimate):
    assert scores_for([0.4] * 5).collapsed(estimate) == "+0.4"
    assert scores_for([0.4, 0.4, -1.0]).collapsed(estimate) is None


def test_the_loss_is_the_mean_negative_log_probability_of_the_truth():
    scores = scores_for([0.4, -1.0])
    steps = scores.labels.trie.paths[scores.labels.indices(scores.truths)]
    assert scores.loss() == pytest.approx(-(scores.edges * steps).sum(axis=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_scores_do_not_depend_on_the_batch_size(own_cache: Path, dataset: str):
    reporter, accelerator = Reporter(quiet=True), accelerator_for(torch.device("cpu"))
    config = resolve({"backbone": "tiny-llama", "dataset": dataset, "output": "none"}, task=DATASETS[dataset].task)
    parts = build(config, reporter, ("valid",))
    assert parts.evaluation_batch == plan_run(config).work.scored_samples
    chosen, *others = (
        score_split(parts.model, parts.collators["valid"], size, accelerator, reporter, "").edges
        for size in (parts.evaluation_batch, 7, 1)
    )
    assert chosen.std() > 0
    for other in others:  # kernels of other CPUs sum in another order: log-probabilities round by their size
        assert np.allclose(other, chosen, rtol=2e-6, atol=1e-5)
