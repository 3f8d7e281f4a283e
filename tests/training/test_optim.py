"""The schedule, the order of the samples, and how a global batch is shared."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from msekit.data.batches.batch import evaluation_batches, global_batches, micro_batches
from msekit.training.optim import learning_rate


def test_the_rate_rises_for_a_tenth_then_falls_to_zero_and_stays():
    rates = [learning_rate(step, 100, 0.1, 2e-3) for step in range(150)]
    assert rates[0] == 0.0, "AdamW's first step has no size, see learning_rate"
    assert rates[5] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(2e-3)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(1e-3)
    assert rates[100:] == [0.0] * 50


def test_every_sample_once_an_epoch_in_an_order_of_seed_and_epoch():
    tokens, frames = np.random.default_rng(0).integers(1, 60, (2, 1003))
    order = global_batches(tokens, frames, 16, seed=1, epoch=0)
    assert sorted(i for batch in order for i in batch) == list(range(1003))
    assert sorted(map(len, order)) == [11, *[16] * 62]
    assert order == global_batches(tokens, frames, 16, seed=1, epoch=0)
    assert order != global_batches(tokens, frames, 16, seed=1, epoch=1)
    assert order != global_batches(tokens, frames, 16, seed=2, epoch=0)


def test_batches_join_samples_of_like_length():
    tokens = np.random.default_rng(0).integers(1, 60, 800)
    padding = [
        sum(tokens[batch].max() - tokens[i] for i in batch)
        for batch in global_batches(tokens, tokens, 16, seed=1, epoch=0)
    ]
    assert sum(padding) < 0.05 * tokens.sum()


def test_seeds_meet_batches_of_like_length_at_the_same_step():
    tokens = np.random.default_rng(0).geometric(0.08, 3452)
    seeds = [global_batches(tokens, tokens, 16, seed, epoch=1) for seed in range(5)]
    longest = np.array([[tokens[batch].max() for batch in order] for order in seeds])
    assert longest.max(axis=0).mean() < 1.1 * longest.mean()
    assert len({tuple(order[0]) for order in seeds}) == 5


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_global_batch_is_shared_without_loss_or_repetition(world, accumulation, size):
    batch = list(range(100, 100 + size))
    shares = [list(micro_batches(batch, rank, world, accumulation)) for rank in range(world)]
    assert all(len(share) == accumulation for share in shares), "every process takes part in every collective"
    counted = [i for share in shares for indices, counts in share if counts for i in indices]
    assert sorted(counted) == batch
    assert all(indices for share in shares for indices, _ in share)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_scores_every_sample_once(world):
    tokens = np.arange(50) % 7
    shares = [evaluation_batches(tokens, tokens, 8, rank, world) for rank in range(world)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(50))
