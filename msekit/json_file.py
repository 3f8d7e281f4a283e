"""JSON, as files and clients bring it: one parser for every reader, which bounds size, depth and numbers.

Whatever is wrong with a text is a ValueError here, and an MsekitError where a file is read. No torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError
from msekit.words import reason

LARGEST = 64 << 20
"""Bytes of a file, or of a line of one that grows with a data set."""
MOST_DEPTH = 64
"""Containers in containers; what we write and read has six."""
_LONGEST_NUMBER = 300
"""Digits of a whole number: a float's range."""


def parse_json(text: str | bytes, *, of_another_program: bool = False) -> Any:
    """What a JSON text says.

    Args:
        text: The text; bytes are UTF-8, with or without a mark at their beginning.
        of_another_program: Of two equal keys the last one counts, as that program has it; otherwise they are refused.

    Raises:
        ValueError: It is no JSON or no UTF-8, gives a key twice, nests deeper than `MOST_DEPTH`, or holds a number
            beyond any float or half of a surrogate pair.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, parse_int=_whole, object_pairs_hook=None if of_another_program else keys_once)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON, {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(reason(error)) from error
    _refuse_depth(value)
    if "\\u" in text:
        _refuse_halves(value)
    return value


def read_json(path: Path, what: str = "file", *, of_another_program: bool = False) -> Any:
    """What a JSON file says.

    Args:
        path: The file.
        what: The kind of file, for the message: "report".
        of_another_program: See `parse_json`.

    Raises:
        MsekitError: It is missing, larger than `LARGEST`, or no JSON (see `parse_json`).
    """
    try:
        return parse_json(bounded_bytes(path, LARGEST), of_another_program=of_another_program)
    except (OSError, ValueError) as error:
        raise _unreadable(error, path, what) from error


def read_json_lines(path: Path, what: str = "file") -> list[dict[str, Any]]:
    """The objects of a JSON-lines file of ours; one line each.

    Raises:
        MsekitError: The file is missing, or a line is too long or no object.
    """
    try:
        objects = [parse_json(line) for line in _bounded_lines(path)]
    except (OSError, ValueError) as error:
        raise _unreadable(error, path, what) from error
    if stray := [number for number, line in enumerate(objects, start=1) if not isinstance(line, dict)]:
        raise MsekitError(f"the {what} is damaged: line {stray[0]} is no object", where=path)
    return objects


def _unreadable(error: OSError | ValueError, path: Path, what: str) -> MsekitError:
    if isinstance(error, FileNotFoundError):
        return MsekitError(f"the {what} is missing", where=path)
    if isinstance(error, OSError):
        return MsekitError(f"the {what} cannot be read: {reason(error)}", where=path)
    return MsekitError(f"the {what} is damaged: {error}", where=path)


def _bounded_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LARGEST + 1):
            if len(line) > LARGEST:
                raise ValueError(f"a line is larger than {LARGEST / (1 << 20):g} MB")
            yield line.removesuffix(b"\n")


def bounded_bytes(path: Path, largest: int) -> bytes:
    """A file's content.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger than allowed.
    """
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest / (1 << 20):g} MB")
    return content


_TOO_DEEP = f"it is nested deeper than {MOST_DEPTH} levels"


def keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key is given twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{twice[:80]}' is given twice")
    return content


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits is beyond any float")
    return int(digits)


def _refuse_depth(value: Any) -> None:
    """Look at one level after the other: whoever uses the value may recurse."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MOST_DEPTH):
        inner = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in inner if isinstance(part, (dict, list))]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _refuse_halves(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a surrogate pair, which is no text") from error
