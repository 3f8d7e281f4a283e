"""Standardising, trimming, shortening and summaries by hand, and what recipe `paper` leaves alone."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from msekit.data.batches.preprocess import Preprocessor, resting_values, shortened, trimmed


def test_non_finite_values_become_the_mean_or_zero():
    frames = np.array([[1.0, np.nan], [3.0, np.inf], [-np.inf, 6.0]])
    raw = Preprocessor()(frames)
    assert raw.tolist() == [[1, 0], [3, 0], [0, 6]]
    scaled = Preprocessor(mean=[1.0, 2.0], std=[2.0, 4.0])(frames)
    assert scaled.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert scaled.dtype == np.float32


def test_the_still_edges_are_cut_and_the_middle_stays():
    frames = np.zeros((20, 3), dtype=np.float32)
    frames[6:11] = [[4, 0, 0], [0, 4, 0], [0, 0, 0], [0, 0, 4], [4, 4, 0]]
    frames[3, 0] = 0.1  # smaller than the share: still
    assert trimmed(frames, 0.3).tolist() == frames[6:11].tolist()


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_nothing_is_cut_from_short_or_constant_sequences(length):
    frames = np.ones((length, 3), dtype=np.float32)
    assert trimmed(frames, 0.3).shape == (length, 3)


def test_long_sequences_are_averaged_in_equal_windows():
    frames = np.arange(12, dtype=np.float32)[:, None]
    assert shortened(frames, 4)[:, 0].tolist() == [1, 4, 7, 10]
    assert shortened(frames, 12) is frames
    for length in (17, 40, 925):
        constant = shortened(np.ones((length, 2), dtype=np.float32), 16)
        assert constant.shape == (16, 2)
        assert np.allclose(constant, 1)


def test_it_survives_its_way_through_the_checkpoint():
    way = Preprocessor(mean=[0.1, 0.2], std=[1.5, 2.5], trim=0.3, max_frames=4)
    again = Preprocessor(**way.model_dump(mode="json"))
    frames = np.random.default_rng(0).normal(size=(30, 2))
    assert np.array_equal(way(frames), again(frames))


def test_an_absent_modality_stays_absent():
    way = Preprocessor(mean=[0.1, 0.2], std=[1.5, 2.5], trim=0.3, max_frames=4)
    assert way(np.zeros((0, 2), dtype=np.float32)).shape == (0, 2)


def summary_of(column_L: list[float], rest: float | None) -> list[float]:
    """Of one feature, by hand."""
    there = [math.isfinite(x) and (rest is None or abs(x - rest) > abs(rest) / 1024) for x in column_L]
    share, onsets = np.mean(there), sum(now and not before for before, now in pairwise(there)) / len(there)
    there = there if any(there) else [True] * len(there)
    values = [x if math.isfinite(x) else 0.0 for x in column_L]
    kept = [x for x, it_is in zip(values, there, strict=True) if it_is]
    changes = [abs(values[i + 1] - values[i]) for i in range(len(there) - 1) if there[i] and there[i + 1]]
    percentiles = np.percentile(kept, (20, 80))
    return [np.mean(kept), np.std(kept), *percentiles, np.mean(changes) if changes else 0.0, share, onsets]


@pytest.mark.parametrize("length", [1, 2, 9, 40])
def test_a_summary_is_of_the_frames_where_a_feature_is_there(length):
    drawn = np.random.default_rng(length)
    frames = drawn.normal(3, 2, size=(length, 4)).astype(np.float32)
    frames[drawn.random(length) < 0.4, 1] = 0.0  # pitch in a pause
    frames[drawn.random(length) < 0.4, 2] = -201.04  # as a cache of half precision does not hold it
    frames[drawn.random(length) < 0.3, 0] = np.nan
    frames[:, 3] = 7.0  # never there
    rest = [None, 0.0, -201.0, 7.0]
    got = Preprocessor(rest=rest).summaries(frames[None]).reshape(7, 4)
    want = np.array([summary_of(column.tolist(), value) for column, value in zip(frames.T, rest, strict=True)]).T
    assert np.allclose(got, want, atol=1e-5)


def test_a_summary_is_standardised_and_survives_the_checkpoint():
    frames = np.array([[0.0, 5.0], [4.0, 7.0], [0.0, 9.0]], np.float32)
    way = Preprocessor(mean=[2.0, 7.0], std=[2.0, 2.0], trim=0.3, max_frames=1, rest=[0.0, None])
    summary = Preprocessor(**way.model_dump(mode="json")).summaries(frames[None])[0]
    assert summary[:2].tolist() == [1.0, 0.0]  # (4 - 2) / 2, and the mean of -1, 0, 1
    assert summary.reshape(7, 2)[5:].tolist() == [[np.float32(1 / 3), 1.0], [np.float32(1 / 3), 0.0]]
    assert (way.summaries(np.zeros((3, 0, 2), np.float32)) == np.zeros((3, 14))).all()


@pytest.mark.parametrize(("length", "width"), [(1, 3), (2, 1), (17, 4), (40, 1), (200, 35)])
def test_a_summary_does_not_depend_on_what_is_summarised_beside_it(length, width):
    drawn = np.random.default_rng(length)
    frames = drawn.normal(size=(6, length, width)).astype(np.float32)
    frames[drawn.random(frames.shape) < 0.2] = 0.0
    way = Preprocessor(rest=[0.0] * width, mean=[0.5] * width, std=[2.0] * width)
    assert np.array_equal(way.summaries(frames), np.concatenate([way.summaries(one[None]) for one in frames]))


def test_a_resting_value_is_one_that_many_frames_share():
    frames = np.random.default_rng(0).normal(size=(1000, 5))
    frames[:300, 0] = 0.0
    frames[:40, 1] = 0.0  # too few
    frames[:, 2] = 8.0  # constant: no other value to tell it from
    frames[::2, 3] = np.nan
    frames[1::2, 3] = 2.0
    frames[:, 4] = np.nan
    assert resting_values(frames) == [0.0, None, None, None, None]
    assert resting_values(frames[:0]) == [None] * 5
