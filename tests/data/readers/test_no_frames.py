"""Arrays of no frames: the modality is absent there, and one line says how many, as nothing else tells why."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from msekit.data.cache.cache import prepare
from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.readers.open_source import open_source
from msekit.data.verify import verify

SAMPLES, EMPTY = 4, 2


def own(folder: Path, ending: str) -> DatasetSpec:
    """Four samples a split, of which the first two of train have audio without frames; the third has none at all."""
    (folder / "audio").mkdir(parents=True)
    lines = []
    for split in SPLITS:
        for number in range(SAMPLES):
            name = f"{split}{number}"
            lines.append(json.dumps({"id": name, "text": f"words {name}", "label": "joy", "split": split}))
            frames = np.ones((0 if split == "train" and number < EMPTY else 3, 2), np.float32) * number
            if (split, number) == ("train", EMPTY):
                continue
            if ending == ".npz":
                np.savez(folder / "audio" / f"{name}.npz", audio=frames)
            else:
                np.save(folder / "audio" / f"{name}.npy", frames[None] if number else frames)
    (folder / "samples.jsonl").write_text("\n".join(lines))
    return DatasetSpec(name="own", task="erc", layout="folder", labels=("joy", "sad"), source=folder)


def published(folder: Path) -> DatasetSpec:
    """The same in the pickles of the paper; the third sample's array is padded and has the length 0."""
    folder.mkdir()
    for split in SPLITS:
        rows = []
        for number in range(SAMPLES):
            frames = np.ones((0 if split == "train" and number < EMPTY else 3, 2), np.float32) * number
            length = 0 if (split, number) == ("train", EMPTY) else len(frames)
            features = {"text": f"words {split}{number}", "audio": frames, "audio_len": length}
            rows.append({"features": features, "label": 0})
        (folder / f"own_{split}.pkl").write_bytes(pickle.dumps(rows))
    return DatasetSpec(name="own", task="erc", layout="erc-pickle", labels=("joy", "sad"), source=folder)


@pytest.mark.parametrize("layout", [".npy", ".npz", "published"])
def test_one_line_with_the_count(layout: str, tmp_path: Path):
    spec = published(tmp_path / "own") if layout == "published" else own(tmp_path / "own", layout)
    outcome = verify(spec)
    assert outcome.verdict == "usable with warnings"
    found = {finding.what: finding.samples for finding in outcome.findings if finding.what.startswith("audio ")}
    assert found["audio has an array of no frames, and counts as absent"] == EMPTY
    assert found["audio is absent"] == 1
    assert outcome.splits["train"].audio.absent == EMPTY + 1
    cache = prepare(spec, root=tmp_path / "cache")
    said = [line for line in cache.info.warnings if "no frames" in line]
    assert said == [f"audio: {EMPTY} arrays have no frames and count as absent (train {EMPTY})"]
    assert cache.info.audio.absent["train"] == EMPTY + 1
    assert [row.audio is None for row in open_source(spec).rows("train")] == [True, True, True, False]


def test_a_whole_set_without_frames_says_both(tmp_path: Path):
    spec = own(tmp_path / "own", ".npy")
    for file in (tmp_path / "own" / "audio").iterdir():
        np.save(file, np.zeros((0, 2), np.float32))
    what = [finding.what for finding in verify(spec).findings]
    assert "audio has an array of no frames, and counts as absent" in what
    assert "no sample has audio" in what
