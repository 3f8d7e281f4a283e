"""What a baseline reads of a text: words, features that the data's file holds, or hidden states of a frozen LLM.

`words`: each word of the train split has an embedding that is learned. `file`: the key `text` of a published file, the
authors' own features of each token. `backbone`: a layer of a frozen LLM, of each token or of the whole text behind a
cue, made once and cached. The two latter are frozen.

Shapes: B batch, T tokens, d width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.hidden_states import StatesWanted, depth
from msekit.backbones.load import load_backbone
from msekit.backbones.precision import default_device, run_dtype
from msekit.data.batches.dialogue import in_context, refuse_without_dialogues
from msekit.data.cache.cache import Cache
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.description_checks import UNSPACED
from msekit.data.readers.beside import text_features
from msekit.errors import MsekitError
from msekit.model.stored_states import states_table
from msekit.model.stored_tokens import token_table
from msekit.model.wording import standard_cue
from msekit.reporter import Reporter

TextKind = Literal["words", "file", "backbone"]
Level = Literal["tokens", "sentence", "llm"]
Look = Callable[[Sequence[int]], Tensor]
"""Positions in a split → states, (B, T, d) or (B, d)."""


@dataclass(frozen=True)
class TextFrom:
    """What the user asks for."""

    kind: TextKind = "words"
    backbone: str | None = None
    layer: int | None = None
    """Of the LLM; None for the one at two thirds of its depth."""
    sentence: Literal["last", "mean"] = "last"
    """The whole text as one state: of the last token behind a cue, or the mean."""
    context: int = 0
    """Earlier utterances of the dialogue that the LLM reads before each text, as by `data.context`."""
    limit: int | None = None
    """Longest text in tokens, with its context; None for the data set's own."""

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        if self.kind != "backbone" and (self.layer is not None or self.sentence != "last"):
            where = "--text-layer" if self.layer is not None else "--sentence"
            raise MsekitError("it is of an LLM's states, and none are read", where=where, fix="--text-from backbone.")
        if self.backbone is None and (self.context or self.limit):
            where = "--context" if self.context else "--text-limit"
            raise MsekitError("it is of what an LLM reads, and none reads", where=where, fix="--text-from backbone.")


@dataclass(frozen=True)
class OfLLM:
    """What a baseline that trains through an LLM is made with."""

    backbone: Backbone
    """Its pass takes no shorter ways."""
    cue: int
    """How many of each text's last tokens are the cue."""
    spec: DatasetSpec


@dataclass
class Texts:
    """Every split's texts, ready to be read."""

    ids: dict[str, list[list[int]]]
    """Numbers of words, or of tokens; at least one each."""
    vocabulary: int = 0
    """Words, where they are learned."""
    width: int | None = None
    """d, where they are states."""
    tokens: dict[str, Look] = field(default_factory=dict)
    sentence: dict[str, Look] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    """What the report says of them."""
    of_llm: OfLLM | None = None
    """The LLM, where a baseline trains through it."""


def words_of(text: str, language: str) -> list[str]:
    """Lower-case words; characters where a language sets no spaces between them."""
    return list(text) if language in UNSPACED else re.findall(r"\w+", text.lower())


def open_texts(
    spec: DatasetSpec, cache: Cache, chosen: np.ndarray, given: TextFrom, level: Level, reporter: Reporter
) -> Texts:
    """Make what is not cached, and open it.

    Args:
        spec: The data set.
        cache: Its cache.
        chosen: Positions of the training samples, whose words have embeddings.
        given: Where the text comes from.
        level: Whether every token is read, the text as a whole, or all by an LLM that is trained through.
        reporter: Where progress goes.

    Raises:
        MsekitError: A file without such features, no such LLM or layer.
    """
    if level == "llm":
        return _for_llm(spec, cache, given, reporter)
    if given.kind == "words":
        return _words(spec, cache, chosen)
    if given.kind == "file":
        return _of_file(spec, cache, level)
    assert given.backbone is not None
    return _of_backbone(spec, cache, given, level, reporter)


def _words(spec: DatasetSpec, cache: Cache, chosen: np.ndarray) -> Texts:
    texts = {split: [words_of(text, spec.language) for text in cache.split(split).texts] for split in SPLITS}
    numbers = {word: place for place, word in enumerate(sorted({w for i in chosen for w in texts["train"][i]}), 2)}
    ids = {
        split: [[numbers.get(word, 1) for word in words[: spec.text_limit]] or [1] for words in texts[split]]
        for split in SPLITS
    }
    return Texts(ids, vocabulary=len(numbers) + 2, said={"text_from": "words"})


def _of_file(spec: DatasetSpec, cache: Cache, level: Level) -> Texts:
    texts, width = Texts({}, said={"text_from": "file"}), 0
    for split in SPLITS:
        found = text_features(spec, split, len(cache.split(split)))
        lengths, width = found.lengths, found.width
        texts.ids[split] = [[1] * max(int(length), 1) for length in lengths]
        if level == "tokens":
            texts.tokens[split] = found.tokens
        else:
            texts.sentence[split] = found.sentence
    texts.width = width
    return texts


def load_frozen(name: str, reporter: Reporter, passes: str = "auto") -> Backbone:
    """An LLM in the precision that suits the machine."""
    folder = checkpoint_folder(name)
    with reporter.status(f"loading {name}"):
        return load_backbone(name, dtype=run_dtype(folder, "none", default_device()), passes=passes)


def _for_llm(spec: DatasetSpec, cache: Cache, given: TextFrom, reporter: Reporter) -> Texts:
    """Tokens with the cue behind them, for a baseline that trains through the LLM."""
    assert given.backbone is not None
    backbone = load_frozen(given.backbone, reporter, passes="plain")
    cue = backbone.encode(standard_cue(spec))
    ids = {
        split: [[*row[: spec.text_limit], *cue] for row in backbone.encode_all(cache.split(split).texts)]
        for split in SPLITS
    }
    said = {"text_from": "llm", "backbone_fingerprint": backbone.fingerprint, "dtype": str(backbone.model.dtype)}
    return Texts(ids, said=said, of_llm=OfLLM(backbone, len(cue), spec))


def tokens_of(
    backbone: Backbone, table: SplitTable, spec: DatasetSpec, given: TextFrom
) -> tuple[list[list[int]], np.ndarray | None]:
    """Every text of a split in tokens, its context in front, and how many of them the context is; None without.

    Raises:
        MsekitError: Context is asked for, and the set has no dialogues.
    """
    limit = given.limit or spec.text_limit
    own = [row[:limit] for row in backbone.encode_all(table.texts)]
    if not given.context:
        return own, None
    refuse_without_dialogues(table, spec.name)
    whole = in_context(table, own, backbone.encode, limit, given.context)
    return whole.ids, whole.lengths


def _of_backbone(spec: DatasetSpec, cache: Cache, given: TextFrom, level: Level, reporter: Reporter) -> Texts:
    assert given.backbone is not None
    backbone = load_frozen(given.backbone, reporter)
    layer = round(2 * depth(backbone) / 3) if given.layer is None else given.layer
    if not 0 <= layer <= depth(backbone):
        raise MsekitError(f"there are layers 0 to {depth(backbone)}, not {layer}", where="--text-layer")
    read = {split: tokens_of(backbone, cache.split(split), spec, given) for split in SPLITS}
    said = {"text_from": "backbone", "text_layer": layer, "backbone_fingerprint": backbone.fingerprint}
    texts = Texts({split: [row or [0] for row in rows] for split, (rows, _) in read.items()}, width=backbone.text_dim)
    if level == "tokens":
        texts.tokens = {split: token_table(backbone, rows, layer, reporter) for split, (rows, _) in read.items()}
    else:
        wanted = StatesWanted((layer,), tuple(backbone.encode(standard_cue(spec))))
        which = 0 if given.sentence == "last" else 1
        for split, (rows, context) in read.items():
            table = states_table(backbone, rows, context, wanted, reporter)
            texts.sentence[split] = lambda places, table=table: table(places)[:, 0, which]  # type: ignore[misc]
        said["text_sentence"] = given.sentence
    texts.said = said | {"dtype": str(backbone.model.dtype)}
    return texts
