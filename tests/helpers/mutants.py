"""Mutants of a file, and what a reader makes of them: tried in forked children, with limits on time and memory.

An outcome is `refused` (an MsekitError), `read` (as the whole file is, where they are compared), `told` (something
else, with a warning), `lawful` (something else, in a format without a checksum), `other` (something else, without a
word), `traceback`, `hang`, `memory` or `killed`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import resource
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from msekit.errors import MsekitError

SECONDS = 10
"""For one mutant."""
MEMORY = 1 << 30
"""Bytes that one mutant may add."""
_LENGTHS = [struct.pack(kind, value) for kind in ("<I", "<Q") for value in (0, 1, 255, 1 << 16, 1 << 31, (1 << 32) - 1)]
_FLOATS = [struct.pack("<f", float(value)) for value in ("nan", "inf", "-inf", "1e38", "3e38")]
_NUMBERS = [b"-1", b"0", b"1e400", b"NaN", b"null", b"9" * 30, b"9" * 5000, b'"x"', b"[]", b"{}", b"true", b"Infinity"]
_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, 10**400, 1e308, float("nan"), float("inf"), -0.5),
    *("", "x", "\ud800", "\x1b[31m", "[/]", "../../etc", "/etc/passwd", "a" * 100_000, "1e5", "nan", "\u2028"),
    *([], {}, [[]], [None], {"a": 1}, [1, 2, 3], ["a", "a"], [[[[[]]]]]),
]


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Args:
        name: Of the file, and where it goes.
        whole: The undamaged file.
        make: A mutant of it.
        use: Reads it as users do.
        differs: Whether a result is another than that of the whole file.
        checked: Whether the format carries a checksum, so that a difference must be told.
    """

    name: str
    whole: Any
    make: Callable[[Any, random.Random], Any]
    use: Callable[[Any], Any]
    differs: Callable[[Any], bool] | None = None
    checked: bool = False


@dataclass(frozen=True)
class Tried:
    """One mutant."""

    reader: str
    number: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    grown: int = 0
    """Bytes that the process' peak grew by."""


FAILED = ("other", "traceback", "hang", "memory", "killed")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three changes of bytes."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = rng.randrange(len(out) + 1)
        kind = rng.randrange(9)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[place : place + rng.randrange(1, 64)]
        elif kind == 2:
            out[place:place] = rng.randbytes(rng.randrange(1, 12))
        elif kind in (3, 4):
            value = rng.choice(_LENGTHS if kind == 3 else _FLOATS)
            out[place : place + len(value)] = value
        elif kind == 5:
            out[place:place] = out[place : place + rng.randrange(1, 64)] * rng.randrange(1, 30)
        elif kind == 6:
            del out[place:]
        elif kind == 7 and out:
            other = rng.randrange(len(out))
            out[place : place + 16], out[other : other + 16] = out[other : other + 16], out[place : place + 16]
        elif numbers := list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(out[:200_000]))):
            found = rng.choice(numbers)
            out[found.start() : found.end()] = rng.choice(_NUMBERS)
    return bytes(out)


def restructured(document: Any, rng: random.Random) -> Any:
    """A JSON document with one or two values of other kinds, missing, added or exchanged."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice([1, 1, 2])):
        nodes = list(_nodes(document))
        if not nodes:
            break
        (holder, key), (other, its) = rng.choice(nodes), rng.choice(nodes)
        kind = rng.randrange(6)
        if kind < 3:
            holder[key] = rng.choice(_VALUES)
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder, dict):
            holder[rng.choice(["x", "format", "", " "])] = rng.choice(_VALUES)
        else:
            holder[key] = json.loads(json.dumps(other[its]))
    return document


def _nodes(value: Any) -> Iterable[tuple[Any, Any]]:
    keys: Sequence[Any] = list(value) if isinstance(value, dict) else range(min(len(value), 20))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _nodes(value[key])


def yaml_mutant(data: bytes, rng: random.Random) -> bytes:
    """A mutant of a YAML text; a comment behind it stays as it is."""
    if rng.randrange(2):
        return mutated(data, rng)
    text, mark, comment = data.partition(b"# checksum")
    changed = yaml.safe_dump(restructured(yaml.safe_load(text), rng), sort_keys=False)
    return changed.encode("utf-8", "surrogatepass") + mark + comment


def json_mutant(data: bytes, rng: random.Random) -> bytes:
    """A mutant of a JSON text: of its bytes or of its structure."""
    return mutated(data, rng) if rng.randrange(2) else json.dumps(restructured(json.loads(data), rng)).encode()


def lines_mutant(data: bytes, rng: random.Random) -> bytes:
    """Likewise of JSON lines."""
    if rng.randrange(2):
        return mutated(data, rng)
    lines = restructured([json.loads(line) for line in data.splitlines()], rng)
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def try_mutants(reader: Reader, numbers: Sequence[int], seed: int) -> list[Tried]:
    """Try the mutants of these numbers in forked children; one that ends its child is an outcome like others."""
    tried: list[Tried] = []
    left = list(numbers)
    while left:
        receiving, sending = os.pipe()
        if (child := os.fork()) == 0:
            os.close(receiving)
            _try_all(reader, left, seed, sending)
        os.close(sending)
        done, how = _collected(receiving, child)
        tried += done
        left = left[len(done) :]
        if left and how is not None:
            tried.append(Tried(reader.name, left.pop(0), how))
    return tried


def _collected(receiving: int, child: int) -> tuple[list[Tried], str | None]:
    """What a child reports, and how it ended early."""
    done, hung = [], False
    with os.fdopen(receiving) as lines:
        while not hung:
            ready, _, _ = select.select([lines], [], [], 3 * SECONDS)
            line = lines.readline() if ready else None
            if line is None:
                hung = True
                os.kill(child, signal.SIGKILL)
            elif line:
                done.append(Tried(**json.loads(line)))
            else:
                break
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        return done, None
    return done, "hang" if hung else "killed"


class _HangError(BaseException):
    pass


def _hang(*_: Any) -> None:
    raise _HangError


def _try_all(reader: Reader, numbers: Sequence[int], seed: int, sending: int) -> None:
    """In a child, which ends here."""
    code = 1
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(silent, stream)
        signal.signal(signal.SIGALRM, _hang)
        said = _Said()
        logging.getLogger("msekit").addHandler(said)
        with os.fdopen(sending, "w", buffering=1) as out:
            for number in numbers:
                out.write(json.dumps(asdict(_try_one(reader, number, seed, said))) + "\n")
        code = 0
    finally:
        os._exit(code)


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _try_one(reader: Reader, number: int, seed: int, said: _Said) -> Tried:
    mutant = reader.make(reader.whole, random.Random(f"{seed} {reader.name} {number}"))
    said.lines.clear()
    before, started = _peak(), time.monotonic()
    detail = ""
    signal.alarm(SECONDS)
    try:
        result = reader.use(mutant)
        signal.alarm(0)
        outcome = _judged(reader, mutant, result, said)
    except MsekitError:
        outcome = "refused"
    except _HangError:
        outcome = "hang"
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/msekit/" in frame.filename]
        place = f"{frames[-1].filename.rpartition('/msekit/')[2]}:{frames[-1].lineno}" if frames else "?"
        outcome, detail = "traceback", f"{type(error).__name__}: {str(error)[:150]!a} at {place}"
    finally:
        signal.alarm(0)
    grown = _peak() - before
    if grown > MEMORY:
        outcome = "memory"
    return Tried(reader.name, number, outcome, detail, round(time.monotonic() - started, 3), grown)


def _judged(reader: Reader, mutant: Any, result: Any, said: _Said) -> str:
    if reader.differs is None or not reader.differs(result):
        return "read"
    if said.lines or getattr(result, "told", False):
        return "told"
    older = isinstance(mutant, bytes) and b"checksum" not in mutant  # as the first files are
    return "other" if reader.checked and not older else "lawful"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
