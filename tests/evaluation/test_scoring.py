"""Scores of a split: the loss they imply, and a collapse that is noticed whatever the estimate."""

from __future__ import annotations

import numpy as np
import pytest

from msekit.data.catalogue import DATASETS
from msekit.evaluation.scoring import Scores
from msekit.model.labels import LabelSpace


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
