"""ChatGLM's tokenizer from its sentencepiece file `tokenizer.model`, token for token the original's.

transformers has none: its general converter of such files drops the blank put before a text and knows none of the
special tokens. The file (a protocol buffer) is read here; sentencepiece itself is only needed to check against.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from msekit.errors import MsekitError

MODEL_FILE = "tokenizer.model"
SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""Special tokens, numbered on from the last piece."""
_NORMAL, _UNKNOWN, _CONTROL, _DEFINED, _BYTE = 1, 2, 3, 4, 6
"""Kinds of pieces."""
_BLANK = "▁"


@dataclass(frozen=True)
class SentencePiece:
    """A sentencepiece file: pieces and how text is normalised. Field numbers are those of sentencepiece_model.proto."""

    pieces: list[tuple[str, float, int]]
    """Text, score and kind, by id."""
    byte_fallback: bool
    """Characters without a piece are written as bytes."""
    charsmap: bytes
    """Compiled replacements of characters; empty for none."""
    dummy_prefix: bool
    """A blank is put before every text."""
    remove_extra_blanks: bool

    @classmethod
    def read(cls, path: Path) -> SentencePiece:
        """Read a file of the BPE kind.

        Raises:
            MsekitError: It is absent, damaged, or of another kind.
        """
        pieces: list[tuple[str, float, int]] = []
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        try:
            for field, value in _fields(path.read_bytes()):
                if field == 1:
                    piece = dict(_fields(value))
                    pieces.append((piece[1].decode(), piece.get(2, 0.0), piece.get(3, _NORMAL)))
                elif field == 2:
                    trainer = dict(_fields(value))
                elif field == 3:
                    normalizer = dict(_fields(value))
        except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise MsekitError(f"not a readable sentencepiece file: {error!r}", where=path) from error
        kinds = {kind for _, _, kind in pieces}
        supported = {_NORMAL, _UNKNOWN, _CONTROL, _DEFINED, _BYTE}
        # 3: kind of model, 24: blanks at the end of words; 5: blanks are escaped
        if trainer.get(3, 1) != 2 or trainer.get(24, 0) or not normalizer.get(5, 1) or not kinds <= supported:
            raise MsekitError("the sentencepiece file is not of ChatGLM's kind (BPE, blanks before words)", where=path)
        if len({text for text, _, _ in pieces}) < len(pieces) or [k for _, _, k in pieces].count(_UNKNOWN) != 1:
            raise MsekitError("the sentencepiece file is damaged: pieces appear twice, or none is unknown", where=path)
        return cls(
            pieces,
            bool(trainer.get(35)),
            normalizer.get(2, b""),
            bool(normalizer.get(3, 1)),
            bool(normalizer.get(4, 1)),
        )

    def merges(self) -> Iterator[tuple[str, str]]:
        """Every pair of pieces that joins to a piece, the best score first (scores, not ids, give the order)."""
        number = {text: position for position, (text, _, kind) in enumerate(self.pieces) if kind == _NORMAL}
        joins = []
        for text, position in number.items():
            for cut in range(1, len(text)):
                left, right = number.get(text[:cut]), number.get(text[cut:])
                if left is not None and right is not None:
                    joins.append((-self.pieces[position][1], position, left, right))
        for _, _, left, right in sorted(joins):
            yield self.pieces[left][0], self.pieces[right][0]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """ChatGLM3's tokenizer. A sequence opens with [gMASK] sop; special tokens written out in a text stay text.

    Raises:
        MsekitError: No tokenizer.model, or not one of ChatGLM's kind.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    model = SentencePiece.read(folder / MODEL_FILE)
    # the original looks a piece up among the special tokens first: one of the same text (sop) bears their number
    vocabulary = {text if text not in SPECIAL else f"[{text}]": n for n, (text, _, _) in enumerate(model.pieces)}
    vocabulary |= {token: number for number, token in enumerate(SPECIAL, start=len(model.pieces))}
    unknown = next(text for text, _, kind in model.pieces if kind == _UNKNOWN)
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=list(model.merges()),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
            ignore_merges=any(kind == _DEFINED for _, _, kind in model.pieces),
        )
    )
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_blanks:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(_BLANK))  # not before an empty text, as in sentencepiece
    steps.append(normalizers.Replace(" ", _BLANK))
    if model.remove_extra_blanks:  # a blank written as its symbol is no blank before, but one at the end
        steps.append(normalizers.Replace(Regex(rf"{_BLANK}+\z"), ""))
    tokenizer.normalizer = normalizers.Sequence(steps)
    strip = [decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    defined = sorted((text for text, _, kind in model.pieces if kind == _DEFINED), key=len, reverse=True)
    if defined:  # pieces that are cut out of a text before any merging, the longest first
        alternatives = Regex("|".join(map(re.escape, defined)))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(alternatives, behavior="isolated")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    specials = [(token, tokenizer.token_to_id(token)) for token in ("[gMASK]", "sop", "</s>")]
    if specials[-1][1] is None:
        raise MsekitError("the sentencepiece file has no </s>", where=folder / MODEL_FILE)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] sop $A", pair="[gMASK] sop $A $B </s>", special_tokens=specials
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        pad_token=unknown,
        eos_token="</s>",
        padding_side="left",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer message: numbers and values (whole number, 4-byte float, or bytes)."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
        elif kind == 1:
            yield key >> 3, message[place : place + 8]
            place += 8
        elif kind == 2:
            length = number()
            if place + length > len(message):
                raise ValueError("truncated")
            yield key >> 3, message[place : place + length]
            place += length
        elif kind == 5:
            yield key >> 3, struct.unpack("<f", message[place : place + 4])[0]
            place += 4
        else:
            raise ValueError(f"unknown kind of field {kind}")
