"""What the GPU measurement of speed is made of; `test_gpu_suite.py` runs it."""

from __future__ import annotations

import pytest

from benchmarks.gpu import speed


def test_the_lengths_are_those_of_meld6(test_data):
    from msekit.data.cache.cache import prepare
    from msekit.data.catalogue import resolve_dataset

    texts = prepare(resolve_dataset(str(test_data / "meld6" / "meld6.yaml"))).split("train").texts
    assert sum(speed.TEXTS_BY_LENGTH) == pytest.approx(len(texts), abs=2)
