"""Frames that are conditioned once: every batch is bit for bit the one that is made anew."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from msekit.data.batches import kept_frames
from msekit.data.batches.batch import Batch, Collator, ModalityDropout, Noise
from msekit.data.batches.kept_frames import KeptFrames
from msekit.data.batches.preprocess import Preprocessor

COUNT, WIDTH = 12, {"audio": 5, "vision": 3}


class Table:
    """Samples in memory, and how often each modality was read."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.ids, self.labels = [str(n) for n in range(COUNT)], np.zeros(COUNT)
        self.audio_lengths, self.vision_lengths = random.integers(0, 40, COUNT), random.integers(0, 9, COUNT)
        self.frames = {name: random.standard_normal((40, width), dtype=np.float32) for name, width in WIDTH.items()}
        self.reads: list[tuple[str, int]] = []

    def __len__(self) -> int:
        return COUNT

    def audio(self, index: int) -> np.ndarray:
        self.reads.append(("audio", index))
        return self.frames["audio"][: self.audio_lengths[index]] * (index + 1)

    def vision(self, index: int) -> np.ndarray:
        self.reads.append(("vision", index))
        return self.frames["vision"][: self.vision_lengths[index]] * (index + 1)


def ways(limit: int | None = 6) -> dict[str, Preprocessor]:
    return {
        name: Preprocessor(mean=[0.1] * width, std=[2.0] * width, trim=0.3, max_frames=limit)
        for name, width in WIDTH.items()
    }


def collators(table: Table, limit: int | None = 6) -> tuple[Collator, Collator]:
    """One that makes everything anew, and one that keeps."""
    each = ways(limit)
    fresh = Collator(table, [[1]] * COUNT, np.zeros(COUNT, np.int64), each["audio"], each["vision"])
    return fresh, replace(fresh, kept=KeptFrames(table, each))


def assert_same(one: Batch, other: Batch) -> None:
    for each in fields(Batch):
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        assert (mine is None and theirs is None) or torch.equal(mine, theirs), each.name


@pytest.mark.parametrize("room", [None, 300], ids=["all are kept", "some are kept"])
def test_batches_are_bit_for_bit_those_made_anew(room: int | None, monkeypatch: pytest.MonkeyPatch):
    if room:
        monkeypatch.setattr(kept_frames, "MOST_BYTES", room)
    fresh, keeping = collators(Table())
    for epoch in range(2):
        of_epoch = {"noise": Noise(0.3, 1, epoch), "dropout": ModalityDropout(0.3, 1, epoch)}
        mine, theirs = replace(keeping, **of_epoch), replace(fresh, **of_epoch)
        for start in range(0, COUNT, 4):
            assert_same(mine(range(start, start + 4)), theirs(range(start, start + 4)))
    assert_same(keeping.shuffled(3)(range(COUNT)), fresh.shuffled(3)(range(COUNT)))
    assert_same(replace(keeping, withheld=frozenset(["audio"]))([1, 2]), replace(fresh, withheld={"audio"})([1, 2]))


def test_a_sample_is_conditioned_once():
    table = Table()
    _, keeping = collators(table)
    for epoch in range(3):
        replace(keeping, noise=Noise(0.3, 1, epoch))(range(COUNT))
    assert sorted(table.reads) == sorted((name, n) for name in WIDTH for n in range(COUNT))


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept_frames, "MOST_BYTES", 300)
    _, keeping = collators(Table())
    keeping(range(COUNT))
    kept = list(keeping.kept._frames.values())
    assert 0 < sum(frames.nbytes for frames in kept) <= 300
    assert all(frames.base is None for frames in kept), "a part keeps the whole"


def test_long_sequences_stay_where_they_are():
    table = Table()
    fresh, keeping = collators(table, limit=None)
    for _ in range(2):
        assert_same(keeping(range(4)), fresh(range(4)))
    assert not keeping.kept._frames


def test_another_way_or_split_gets_its_own_frames():
    fresh, keeping = collators(Table())
    keeping(range(COUNT))
    fresh(range(COUNT))
    other = ways(4)
    assert_same(replace(keeping, audio=other["audio"])([1, 2]), replace(fresh, audio=other["audio"])([1, 2]))
    table = Table(seed=1)
    assert_same(replace(keeping, split=table)([1, 2]), replace(fresh, split=table)([1, 2]))


def test_noise_is_on_real_frames_and_the_same_whatever_the_padding():
    fresh, _ = collators(Table())
    plain, noisy = fresh(range(COUNT)), replace(fresh, noise=Noise(0.3, 7, 2))(range(COUNT))
    for modality, name in enumerate(WIDTH):
        for row, length in enumerate(getattr(plain, f"{name}_lengths").tolist()):
            shape = getattr(plain, name).shape[1:]
            drawn = np.random.default_rng((7, 2, row, modality)).standard_normal(shape, dtype=np.float32)
            expected = getattr(plain, name)[row] + 0.3 * torch.from_numpy(drawn)
            assert torch.equal(getattr(noisy, name)[row, :length], expected[:length])
            assert not getattr(noisy, name)[row, length:].any()
