"""What the GPU measurement of speed is made of; `test_gpu_suite.py` runs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "speed.py"


@pytest.fixture(scope="module")
def speed():
    spec = importlib.util.spec_from_file_location("gpu_speed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_speed"] = module
    spec.loader.exec_module(module)
    return module


def test_the_lengths_are_those_of_meld6(speed, test_data):
    from msekit.data.cache import prepare
    from msekit.data.catalogue import resolve_dataset

    texts = prepare(resolve_dataset(str(test_data / "meld6" / "meld6.yaml"))).split("train").texts
    assert sum(speed.TEXTS_BY_LENGTH) == pytest.approx(len(texts), abs=2)
