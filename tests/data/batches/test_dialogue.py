"""Dialogue context: whose utterances come before a text, in what order, and what gives way when there is no room."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from msekit.data.batches.dialogue import in_context, in_dialogues, previous, refuse_without_dialogues
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import resolve_dataset
from msekit.errors import MsekitError


def encode(text: str) -> list[int]:
    """One token per letter."""
    return [ord(letter) for letter in text]


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def table(*rows: tuple[str | None, str | None, str]) -> SimpleNamespace:
    """(dialogue, speaker, text) per sample."""
    dialogues, speakers, texts = zip(*rows, strict=True)
    fields = {"dialogues": list(dialogues), "speakers": list(speakers), "texts": list(texts), "name": "train"}
    return SimpleNamespace(**fields)


TALK = table(("1", "Ann", "hi"), ("1", "Bob", "yo"), ("2", "Eve", "so"), ("1", "Ann", "ok"), (None, None, "hm"))


def contexts(split: SimpleNamespace, limit: int, count: int) -> list[tuple[str, str]]:
    own = [encode(text)[:limit] for text in split.texts]
    contextual = in_context(split, own, encode, limit, count)
    cut = zip(contextual.ids, contextual.lengths, strict=True)
    return [(decode(ids[:length]), decode(ids[length:])) for ids, length in cut]


def test_previous_utterances_of_the_same_dialogue_newest_first():
    assert previous(TALK.dialogues, 3) == [[], [0], [], [1, 0], []]
    assert previous(TALK.dialogues, 1) == [[], [0], [], [1], []]


def test_context_stands_before_the_text_with_its_speakers():
    contextual = contexts(TALK, limit=100, count=2)
    assert contextual == [
        ("Ann:", "hi"),
        ("Ann: hi\nBob:", "yo"),
        ("Eve:", "so"),
        ("Ann: hi\nBob: yo\nAnn:", "ok"),
        ("", "hm"),
    ]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (22, "Ann: hi\nBob: yo\nAnn:"),
        (21, "Bob: yo\nAnn:"),
        (14, "Bob: yo\nAnn:"),
        (13, "Ann:"),
        (6, "Ann:"),
        (5, ""),
        (2, ""),
    ],
)
def test_the_oldest_gives_way_first_and_the_text_never(limit: int, expected: str):
    assert contexts(TALK, limit, 2)[3] == (expected, "ok")


def test_a_text_that_fills_the_limit_is_cut_as_without_context():
    long = table(("1", "Ann", "hi"), ("1", "Bob", "x" * 30))
    assert contexts(long, 10, 2)[1] == ("", "x" * 10)


def test_what_was_used_and_left_out_is_counted():
    own = [encode(text) for text in TALK.texts]
    contextual = in_context(TALK, own, encode, 14, 2)
    assert (contextual.utterances, contextual.left_out) == (2, 1)
    assert "0.40 utterances" in contextual.summary(14)
    assert "1 did not fit into 14 tokens; --set data.text_limit makes room" in contextual.summary(14)
    assert in_context(TALK, own, encode, 50, 2).summary(50).endswith("0 did not fit into 50 tokens")


def test_only_a_set_most_of_whose_samples_follow_another_is_of_dialogues():
    assert in_dialogues(table(("1", "Ann", "hi"), ("1", "Bob", "yo"), ("1", "Ann", "ok")))
    assert not in_dialogues(table(("1", "Ann", "hi"), ("1", "Bob", "yo"), ("2", "Ann", "hi"), (None, "Bob", "yo")))


def test_a_set_without_dialogues_is_refused():
    with pytest.raises(MsekitError, match="data set 'mine' has no dialogue ids, which --context needs"):
        refuse_without_dialogues(table((None, "Ann", "hi")), "mine")
    refuse_without_dialogues(TALK, "mine")


def test_meld6_utterances_are_in_order(test_data: Path, tmp_path: Path):
    """What the context relies on: in every dialogue the file's order is that of the utterance numbers."""
    cache = prepare(resolve_dataset(str(test_data / "meld6" / "meld6.yaml")), root=tmp_path)
    for split in ("train", "valid", "test"):
        table = cache.split(split)
        assert all(speaker for speaker in table.speakers)
        numbers = [int(identity.rpartition("utt")[2]) for identity in table.ids]
        for position, earlier in enumerate(previous(table.dialogues, 3)):
            assert [numbers[other] for other in earlier] == sorted((numbers[o] for o in earlier), reverse=True)
            assert all(numbers[other] < numbers[position] for other in earlier)
            assert all(table.dialogues[other] == table.dialogues[position] for other in earlier)
