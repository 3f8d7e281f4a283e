"""Both ways of loading give every sample once, with the same texts and features."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.speed import data_speed
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training.build import build


def test_the_published_way_loads_what_the_kit_loads():
    fields = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "none", "recipe": "paper"}
    settings = ["data.standardise=false"]
    parts = build(resolve(fields, task="erc", overrides=settings), Reporter(quiet=True), splits=("train",))
    split = data_speed.PublishedSet(parts.collators["train"].split)
    theirs = next(iter(DataLoader(split, 16, collate_fn=data_speed.Padding(parts))))
    ours = parts.collators["train"](list(range(16)))
    assert len(split) == 960
    assert theirs["text_ids"].shape[1] == parts.text_limit
    assert torch.equal(theirs["text_ids"][:, : ours.text_ids.shape[1]], ours.text_ids)
    assert torch.equal(theirs["audio_length"], ours.audio_lengths)
    assert torch.allclose(theirs["audio"][:, : ours.audio.shape[1]], ours.audio)
    assert torch.allclose(theirs["vision"][:, : ours.vision.shape[1]], ours.vision)


@pytest.mark.slow
def test_it_prints_a_row_for_each_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    options = ["--datasets", "synthetic-erc", "--backbone", "tiny-llama", "--rounds", "1", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["data_speed.py", *options])
    data_speed.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == [
        "| published way",
        "| kit, recipe paper",
        "| kit, recipe kit",
        "| training on it, recipe kit",
    ]
    assert rows[-1][4] == "100.00%"
