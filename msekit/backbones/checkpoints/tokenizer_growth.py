"""How long a tokenizer may make a text: four replacements of a letter by a thousand fill any memory with one `a`.

The tokenizers library rewrites a text before it cuts it, without a bound, and ends the process where memory ends. What
`tokenizer.json` says of it is added up before it is loaded. No torch.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError
from msekit.words import reason

TOKENIZER = "tokenizer.json"
MOST_GROWTH = 200.0
"""Bytes of one byte of text. Of what is published, NFKD behind a replaced space comes to 33."""
_GROWTH = {"NFD": 3.0, "NFC": 3.0, "NFKD": 11.0, "NFKC": 11.0, "Lowercase": 1.5, "BertNormalizer": 4.5}
_CUTTING = {"ByteLevel": 2.0, "Metaspace": 3.0}
"""Normalisers, and what stands before the model, that make a text longer: bytes of a byte at most."""


def refuse_growth(folder: Path) -> None:
    """Refuse a checkpoint whose `tokenizer.json` makes texts longer without measure; one without the file is not ours.

    Raises:
        MsekitError: It does, or the file is no JSON of that form.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        return
    try:
        stated = json.loads(file.read_bytes())
        ways = {
            "texts": _growth(stated.get("normalizer")) * _growth(stated.get("pre_tokenizer")),
            "tokens": _growth(stated.get("decoder")),
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise MsekitError(f"the tokenizer cannot be loaded: {reason(error)}", where=file) from error
    for what, growth in ways.items():
        if growth > MOST_GROWTH:
            raise MsekitError(
                f"the tokenizer makes {what} up to {growth:.3g} times as long, more than {MOST_GROWTH:g}",
                where=file,
                fix="Fetch the checkpoint again, from its publisher.",
            )


def _growth(part: Any) -> float:
    """Bytes that one byte may become by a part and all that it holds, one after the other."""
    growth = 1.0
    for step in _steps(part):
        kind = step.get("type")
        if kind == "Replace":
            growth *= _of_replacement(step)
        elif kind == "Precompiled":
            growth *= _longest_entry(step["precompiled_charsmap"])
        elif kind in ("Prepend", "Prefix"):  # once for each text, but each text may be one byte
            growth *= 1 + len(str(step.get("prepend", "")).encode())
        else:
            growth *= _GROWTH.get(str(kind), _CUTTING.get(str(kind), 1.0))
    return growth


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    if part is None:
        return
    if part.get("type") != "Sequence":
        yield part
        return
    for key in ("normalizers", "pretokenizers", "decoders"):
        for inner in part.get(key) or ():
            yield from _steps(inner)


def _of_replacement(step: dict[str, Any]) -> float:
    """A pattern of characters is replaced as a whole; an expression may match one byte, or none before each."""
    content, pattern = len(step["content"].encode()), step["pattern"]
    if pattern.get("String"):
        return max(1.0, content / len(pattern["String"].encode()))
    return 1.0 + content


def _longest_entry(charsmap: str) -> float:
    """Of sentencepiece's table: a trie, its size before it, and behind it what characters become, each up to a NUL."""
    table = base64.b64decode(charsmap)
    size = int.from_bytes(table[:4], "little")
    return float(max(1, *map(len, table[4 + size :].split(b"\0"))))
