"""The sides of a dialogue, among them speakers whom training has never heard."""

from __future__ import annotations

import torch

from msekit.baselines.dialogues import parties_of
from msekit.baselines.rival_batch import RivalBatch
from msekit.baselines.rival_data import _numbered
from msekit.baselines.texts import words_of


def test_speakers_whom_training_has_not_heard_are_sides_of_their_own():
    names, dialogues = ["Ann", "Bob", "Ann", "Bob", "Ann"], [0, 0, 0, 0, 1]
    count, none = len(names), torch.zeros(len(names), dtype=torch.int64)
    batch = RivalBatch(torch.arange(count), none[:, None], none, None, None, None, None, none.float())
    batch.dialogue, batch.turn, batch.speaker = torch.tensor(dialogues), torch.arange(count), none  # 0: unheard
    batch.party = torch.from_numpy(_numbered(names))
    groups = parties_of(batch)
    assert sorted(groups.mask.sum(dim=1).tolist()) == [1, 2, 2]
    assert groups.row[0] == groups.row[2] != groups.row[1] == groups.row[3]


def test_words_of_languages_without_spaces_are_characters():
    assert words_of("ねこがいる", "ja") == list("ねこがいる")
    assert words_of("A cat is here", "en") == ["a", "cat", "is", "here"]
