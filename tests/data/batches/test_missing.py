"""Samples that lack a modality: found, kept, left out or refused; and modalities withheld in training and testing."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msekit.data.batches.batch import Collator, ModalityDropout, Noise
from msekit.data.batches.missing import complete, refuse_incomplete, training_positions
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.cache.cache import prepare
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> SplitTable:
    """Twenty samples; every fourth has no vision, sample 5 no audio."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    rows = [
        {
            "features": {
                "text": f"text {number}",
                "audio": rng.normal(size=(3, 4)).astype(np.float32),
                "audio_len": 0 if number == 5 else 3,
                "video": rng.normal(size=(2, 5)).astype(np.float32),
                "video_len": 0 if number % 4 == 3 else 2,
            },
            "label": number % 2,
            "id": f"clip{number}",
        }
        for number in range(20)
    ]
    for name in ("train", "valid", "test"):
        (folder / f"set_{name}.pkl").write_bytes(pickle.dumps(rows))
    spec = DatasetSpec(name="set", task="erc", layout="erc-pickle", labels=("a", "b"), source=folder)
    return prepare(spec, root=folder).split("train")


def collator(split: SplitTable, **changes: object) -> Collator:
    made = Collator(split, [[1, 2]] * 20, np.zeros(20, np.int64), Preprocessor(), Preprocessor())
    return replace(made, **changes)


def test_complete_samples(split: SplitTable):
    lacking = {3, 5, 7, 11, 15, 19}
    assert set(np.flatnonzero(~complete(split, ["audio", "vision"]))) == lacking
    assert set(np.flatnonzero(~complete(split, ["audio"]))) == {5}
    assert complete(split, []).all()


def test_the_first_incomplete_sample_is_named(split: SplitTable):
    with pytest.raises(MsekitError, match=r"'clip3' has no vision, nor have 4 others \(train row 3\).*--on-missing"):
        refuse_incomplete(split, ["vision"])
    refuse_incomplete(split, [])


def test_dropping_leaves_out_the_incomplete_and_them_alone(split: SplitTable):
    everything = training_positions(split, ["audio", "vision"], drop=False, limit=None)
    assert everything.tolist() == list(range(20))
    kept = training_positions(split, ["audio", "vision"], drop=True, limit=None)
    assert set(everything) - set(kept) == {3, 5, 7, 11, 15, 19}
    limited = training_positions(split, ["audio", "vision"], drop=True, limit=6)
    assert len(limited) == 6, "the limit counts samples that are trained on"
    assert set(limited) <= set(kept)
    assert (np.diff(limited) > 0).all()


def test_dropping_everything_is_refused(split: SplitTable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(split, "vision_lengths", np.zeros(20, np.int64))
    with pytest.raises(MsekitError, match="no sample of train has all modalities"):
        training_positions(split, ["vision"], drop=True, limit=None)


def test_dropout_depends_on_seed_epoch_and_sample_alone(split: SplitTable):
    first = collator(split, dropout=ModalityDropout(0.5, 1, 0))
    lengths = first(list(range(20))).audio_lengths
    assert lengths is not None
    assert 0 < int((lengths == 0).sum()) < 20
    backwards = first(list(range(19, -1, -1))).audio_lengths
    assert backwards is not None
    assert lengths.tolist() == backwards.tolist()[::-1], "not on the batch"
    alone = [int(first([index]).audio_lengths) for index in range(20)]  # type: ignore[arg-type]
    assert alone == lengths.tolist()
    for other in (ModalityDropout(0.5, 2, 0), ModalityDropout(0.5, 1, 1)):
        again = collator(split, dropout=other)(list(range(20))).audio_lengths
        assert again is not None
        assert again.tolist() != lengths.tolist()


def test_dropout_takes_its_share_of_each_modality_by_itself(split: SplitTable):
    drops = [
        [ModalityDropout(0.3, 1, epoch).drops(index, modality) for index in range(200) for epoch in range(10)]
        for modality in (0, 1)
    ]
    shares = np.mean(drops, axis=1)
    assert shares == pytest.approx([0.3, 0.3], abs=0.04)
    assert np.corrcoef(drops)[0, 1] == pytest.approx(0, abs=0.08)


def test_dropout_leaves_the_noise_of_what_stays_as_it_is(split: SplitTable):
    noise = Noise(0.5, 1, 0)
    plain, dropped = collator(split, noise=noise), collator(split, noise=noise, dropout=ModalityDropout(0.5, 1, 0))
    before, after = plain([0, 1, 2, 4]), dropped([0, 1, 2, 4])
    for row, length in enumerate(after.audio_lengths.tolist()):  # type: ignore[union-attr]
        if length:
            assert (before.audio[row, :length] == after.audio[row, :length]).all()  # type: ignore[index]


def test_withheld_modalities_are_absent_from_every_sample(split: SplitTable):
    batch = collator(split, withheld=frozenset({"vision"}))([0, 1, 2])
    assert batch.vision_lengths is not None
    assert batch.audio_lengths is not None
    assert batch.vision_lengths.tolist() == [0, 0, 0]
    assert batch.audio_lengths.tolist() == [3, 3, 3]
    assert (batch.vision == 0).all()


def test_absent_samples_keep_their_place(split: SplitTable, tmp_path: Path):
    """A sample without vision never gets another's: its frames are empty, its neighbours' are their own."""
    batch = collator(split)([2, 3, 4])
    assert batch.vision is not None
    assert batch.vision_lengths is not None
    assert batch.vision_lengths.tolist() == [2, 0, 2]
    for row, index in ((0, 2), (2, 4)):
        assert (batch.vision[row].numpy() == split.vision(index)).all()
