"""The logs of an extraction: shards that start together do not take each other's for another plan's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.media.records import ExtractionPlan, Shard, finished, log_of

PLAN = ExtractionPlan(Extractor(name="logmel", version="1"), None)


def test_shards_that_start_together_all_start(tmp_path: Path) -> None:
    count = 8
    for trial in range(40):
        output, together = tmp_path / str(trial), threading.Barrier(count)
        output.mkdir()

        def start(number: int, output: Path = output, together: threading.Barrier = together) -> dict:
            together.wait()
            return finished(output, PLAN, Shard(number, count))

        with ThreadPoolExecutor(count) as pool:
            assert list(pool.map(start, range(count))) == [{}] * count


def test_an_empty_log_is_begun_anew_and_another_plan_is_refused(tmp_path: Path) -> None:
    own = log_of(tmp_path, Shard(0, 2))
    own.touch()
    log_of(tmp_path, Shard(1, 2)).touch()
    assert finished(tmp_path, PLAN, Shard(0, 2)) == {}
    assert own.read_text().count("\n") == 1
    with pytest.raises(MsekitError, match="other extractors"):
        finished(tmp_path, ExtractionPlan(Extractor(name="logmel", version="2"), None), Shard(1, 2))
