"""Standardising, trimming and shortening by hand, and what recipe `paper` leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from msekit.data.batches.preprocess import Preprocessor, shortened, trimmed


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
