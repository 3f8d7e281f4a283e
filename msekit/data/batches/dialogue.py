"""Dialogue context (`data.context`): earlier utterances of a dialogue, put in front of a sample's own text.

    Rachel: You went?⏎Ross: I did.⏎Rachel:And?

The context has up to N previous utterances of the same dialogue and split, each with its speaker. The sample's own
speaker and text follow; the text has the same tokens as without context. Context and text stay within the text limit:
utterances are taken whole, the newest first, until one does not fit, and the sample's text is never cut for them. The
LLM alone reads the context: the text mean that guides the adapter is of the sample's own text.

The order of utterances is that of the file. (In meld6 it is that of `utterance_id`, in every dialogue; utterances that
the set leaves out, 47 % of the gaps between neighbours, are missing from the context too.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msekit.errors import MsekitError

if TYPE_CHECKING:
    from msekit.data.cache.split_table import SplitTable

_MANY = 20  # a share of 1/20 of the utterances left out is worth a word


@dataclass(frozen=True)
class InContext:
    """A split's texts in tokens, each with its context in front."""

    ids: list[list[int]]
    lengths: np.ndarray
    """(N,) tokens of each sample's context."""
    utterances: int
    """Previous utterances that the contexts of all samples hold."""
    left_out: int
    """Previous utterances that did not fit into the text limit."""

    def summary(self, limit: int) -> str:
        """Its figures in one line, for the user."""
        mean = self.utterances / len(self.ids)
        room = f"{self.left_out} did not fit into {limit} tokens"
        if self.left_out * _MANY > self.utterances:
            room += "; --set data.text_limit makes room"
        return f"context of {mean:.2f} utterances and {self.lengths.mean():.1f} tokens on average; {room}"


def refuse_without_dialogues(table: SplitTable, dataset: str) -> None:
    """Refuse a split in which no sample has a dialogue id.

    Raises:
        MsekitError: No sample has one.
    """
    if not any(dialogue is not None for dialogue in table.dialogues):
        raise MsekitError(
            f"data set '{dataset}' has no dialogue ids, which --context needs",
            where=table.name,
            fix="Leave --context away, or give samples a `dialogue_id` (and a `speaker`).",
        )


def in_dialogues(table: SplitTable) -> bool:
    """Whether most samples follow another one of their dialogue."""
    return 2 * sum(map(bool, previous(table.dialogues, 1))) > len(table.dialogues)


def previous(dialogues: list[str | None], count: int) -> list[list[int]]:
    """For each sample the positions of up to `count` previous samples of its dialogue, newest first."""
    said: defaultdict[str, list[int]] = defaultdict(list)
    before: list[list[int]] = []
    for position, dialogue in enumerate(dialogues):
        earlier = [] if dialogue is None else said[dialogue]
        before.append(earlier[::-1][:count])
        earlier.append(position)
    return before


def in_context(
    table: SplitTable, texts: list[list[int]], encode: Callable[[str], list[int]], limit: int, count: int
) -> InContext:
    """Put previous utterances before every text.

    Args:
        table: The split.
        texts: Each sample's own text in tokens, already cut to the limit.
        encode: Text → tokens, without special tokens.
        limit: Most tokens of context and own text together.
        count: Most previous utterances of a sample.
    """
    lines = [encode(line_of(speaker, text)) for speaker, text in zip(table.speakers, table.texts, strict=True)]
    ids, lengths, used, left_out = [], [], 0, 0
    for own, speaker, earlier in zip(texts, table.speakers, previous(table.dialogues, count), strict=True):
        context, taken = context_of(own, opening_of(speaker, encode), [lines[place] for place in earlier], limit)
        used, left_out = used + taken, left_out + len(earlier) - taken
        ids.append(context + own)
        lengths.append(len(context))
    return InContext(ids, np.array(lengths, dtype=np.int64), used, left_out)


def line_of(speaker: str | None, text: str) -> str:
    """An earlier utterance as the LLM reads it."""
    return f"{text}\n" if speaker is None else f"{speaker}: {text}\n"


def opening_of(speaker: str | None, encode: Callable[[str], list[int]]) -> list[int]:
    """The tokens of the sample's own speaker, which stand before its text."""
    return [] if speaker is None else encode(f"{speaker}:")


def context_of(
    own: Sequence[int], opening: list[int], earlier: Iterable[list[int]], limit: int
) -> tuple[list[int], int]:
    """What stands before a text, and how many earlier utterances that holds.

    Args:
        own: The text in tokens.
        opening: Its speaker in tokens.
        earlier: Earlier utterances in tokens, the newest first.
        limit: Most tokens of all together.
    """
    context = opening
    room, taken = limit - len(own) - len(context), 0
    if room < 0:
        context = []
    for line in earlier:
        room -= len(line)
        if room < 0:
            break
        context, taken = line + context, taken + 1
    return context, taken
