"""The synthetic sets' ceilings, found from the generated rows themselves."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable

import numpy as np
import pytest

from msekit.data.readers import synthetic
from msekit.data.readers.published import Row
from msekit.data.readers.synthetic import SIZES, ceiling, decode_audio, decode_vision, synthetic_rows
from msekit.errors import MsekitError

SEEN: dict[str, Callable[[Row], Hashable]] = {
    "full": lambda row: (row.text, decode_audio(row.audio), decode_vision(row.vision)),
    "no-audio": lambda row: (row.text, decode_vision(row.vision)),
    "no-vision": lambda row: (row.text, decode_audio(row.audio)),
    "text-only": lambda row: row.text,
}


def grouped(name: str, split: str, seen: str) -> list[np.ndarray]:
    """Labels of the rows that look the same to a predictor which knows only `seen`."""
    groups = defaultdict(list)
    for row in synthetic_rows(name, split):
        groups[SEEN[seen](row)].append(row.label)
    return [np.array(labels) for labels in groups.values()]


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("seen", SEEN)
def test_erc_ceiling_is_the_best_guess_per_visible_cell(split: str, seen: str) -> None:
    groups = grouped("synthetic-erc", split, seen)
    best = sum(np.bincount(labels.astype(int)).max() for labels in groups)
    assert best / SIZES[split] == ceiling("synthetic-erc")[seen]["acc"]


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("seen", SEEN)
def test_msa_ceiling_is_the_best_guess_per_visible_cell(split: str, seen: str) -> None:
    groups = grouped("synthetic-msa", split, seen)
    truth = np.concatenate(groups)
    medians = np.concatenate([np.full(len(labels), np.median(labels)) for labels in groups])
    means = np.concatenate([np.full(len(labels), labels.mean()) for labels in groups])
    expected = ceiling("synthetic-msa")[seen]
    assert np.abs(truth - medians).mean() == pytest.approx(expected["mae"], abs=1e-12)
    if expected["corr"] is None:
        assert np.ptp(means) == 0
    else:
        assert np.corrcoef(truth, means)[0, 1] == pytest.approx(expected["corr"], abs=1e-12)


@pytest.mark.parametrize("name", ["synthetic-erc", "synthetic-msa"])
@pytest.mark.parametrize("split", SIZES)
def test_rows_are_shaped_as_described_and_decide_their_label(name: str, split: str) -> None:
    rows = list(synthetic_rows(name, split))
    assert len(rows) == SIZES[split] == len({row.id for row in rows})
    assert rows[12].id == f"{split}-000012"
    for row in rows:
        assert row.audio is not None
        assert row.vision is not None
        assert row.audio.dtype == row.vision.dtype == np.float32
        assert 8 <= len(row.audio) <= 24
        assert 4 <= len(row.vision) <= 12
        assert (row.audio.shape[1], row.vision.shape[1]) == (16, 8)
        a, v = decode_audio(row.audio), decode_vision(row.vision)
        values = synthetic.INTENSITIES
        assert row.label == (2 * a + v if name == "synthetic-erc" else values[a] + values[v])
        assert (row.audio[:, a] == 2).sum() >= len(row.audio) / 2
    assert {len(row.audio) for row in rows} == set(range(8, 25))


def test_neighbouring_rows_are_not_sorted_by_label() -> None:
    labels = np.array([row.label for row in synthetic_rows("synthetic-erc", "train")])
    assert 0.6 < (np.diff(labels) != 0).mean() < 0.9


def test_the_rows_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from msekit.data.readers.synthetic import synthetic_rows as rows\n"
        "h = hashlib.sha256()\n"
        "for r in rows('synthetic-msa', 'test'): h.update(r.text.encode() + r.audio.tobytes() + r.vision.tobytes())\n"
        "import sys; sys.stdout.write(h.hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1
    first = [next(iter(synthetic_rows("synthetic-erc", split))).audio for split in SIZES]
    assert not np.array_equal(first[0][:8], first[1][:8])


def test_unknown_names_are_refused_at_the_call() -> None:
    with pytest.raises(MsekitError, match="synthetic-erc"):
        synthetic_rows("synthetic-er", "train")
    with pytest.raises(MsekitError, match="valid"):
        synthetic_rows("synthetic-erc", "val")
    with pytest.raises(MsekitError):
        ceiling("mosei")
