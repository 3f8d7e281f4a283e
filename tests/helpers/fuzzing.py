"""Mutated feature files against the whole way from file to rows: the clear error or rows, nothing else.

    python tests/helpers/fuzzing.py --files 100000

Mutations are of bytes (flips, cuts, insertions, lengths of all sizes, splices of two files) and of pickle
instructions (deleted, doubled, swapped, replaced by instructions of other kinds). Memory is limited by the system
and time by an alarm, so that a blow-up or a hang ends the run.
"""

from __future__ import annotations

import argparse
import collections
import pickle
import pickletools
import resource
import signal
import struct
import tempfile
import time
from pathlib import Path

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.published import PublishedSet
from msekit.errors import MsekitError

SPLITS = ("train", "valid", "test")
SECONDS_PER_FILE = 10
MEMORY = 2 << 30  # address space beyond what the process holds at the start


def seeds() -> list[bytes]:
    """Small valid files of both layouts in every protocol."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "features": {
                "text": np.str_(f"text {i}"),
                "audio": rng.normal(size=(4, 3)).astype(np.float16),
                "video": np.asfortranarray(rng.normal(size=(3, 2))),
                "audio_len": np.int64(3),
                "video_len": 2,
            },
            "label": ("joy", "anger", 1)[i % 3],
            "speaker": "A",
            "dialogue_id": i,
        }
        for i in range(3)
    ]
    columns = {
        "raw_text": np.array(["one", "two"]),
        "audio": rng.normal(size=(2, 700, 3)),
        "audio_lengths": [3, 2],
        "vision": np.array([[[1.0]], [[2.0]]], dtype=">f4"),
        "id": np.array(["a", None], dtype=object),
        "regression_labels": np.array([0.5, -1.0]),
        "extra": {(1, "a"), 2.5, 3 + 4j},
    }
    values = [rows, dict.fromkeys(SPLITS, columns), collections.OrderedDict(train=columns)]
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def _instructions(data: bytes) -> list[bytes]:
    places = [place for _, _, place in pickletools.genops(data)]
    return [data[start:stop] for start, stop in zip(places, [*places[1:], len(data)], strict=True)]


SEEDS = seeds()
FRAGMENTS = sorted(
    {part for data in SEEDS for part in _instructions(data) if len(part) < 64}
    | {bytes([code]) for code in range(256)}
    | {b"cos\nsystem\n", b"\x82\xf0", b"Px\n", b"cbuiltins\nlist\n", b"\x8b\xff\xff\xff\x7f", b"\x95" + b"\xff" * 8}
)
_LENGTHS = [struct.pack(kind, value) for kind in ("<I", "<Q") for value in (0, 1, 255, 1 << 16, 1 << 31, (1 << 32) - 1)]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four mutations of bytes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(0, len(out) + 1))
        stop = place + int(rng.integers(1, 24))
        kind = rng.integers(6)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[place:stop] = b""
        elif kind == 2:
            out[place:place] = rng.bytes(int(rng.integers(1, 12)))
        elif kind == 3:
            length = _LENGTHS[int(rng.integers(len(_LENGTHS)))]
            out[place : place + len(length)] = length
        elif kind == 4:
            out[place:place] = out[place:stop] * int(rng.integers(1, 50))
        else:
            other = SEEDS[int(rng.integers(len(SEEDS)))]
            out[place:] = other[int(rng.integers(len(other))) :]
    return bytes(out)


def rearranged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four mutations of whole instructions."""
    parts = _instructions(data)
    for _ in range(int(rng.integers(1, 5))):
        place, other = (int(rng.integers(0, len(parts))) for _ in range(2))
        kind = rng.integers(5)
        if kind == 0 and len(parts) > 2:
            del parts[place]
        elif kind == 1:
            parts.insert(place, parts[other])
        elif kind == 2:
            parts[place], parts[other] = parts[other], parts[place]
        elif kind == 3:
            parts[place] = FRAGMENTS[int(rng.integers(len(FRAGMENTS)))]
        else:
            parts.insert(place, FRAGMENTS[int(rng.integers(len(FRAGMENTS)))])
    return b"".join(parts)


def clear(error: MsekitError) -> None:
    """It names the place and is of a length that can be read."""
    assert error.where is not None
    assert 10 < len(str(error)) < 4000


def try_file(folder: Path, data: bytes) -> str:
    """Read one file as both layouts; anything but rows or the clear error is raised."""
    files = {f"toy_{split}.pkl" for split in SPLITS} | {"toy.pkl"}
    for name in files:
        path = folder / name
        path.unlink(missing_ok=True)  # a mapped file is never written over
        path.write_bytes(data)
    outcome = "refused"
    for layout, source in (("erc-pickle", folder), ("msa-pickle", folder / "toy.pkl")):
        labels = {"task": "erc", "labels": ("joy", "anger")} if layout == "erc-pickle" else {"task": "msa"}
        span = {} if layout == "erc-pickle" else {"range": (-3, 3)}
        spec = DatasetSpec(name="toy", layout=layout, source=source, **labels, **span)
        try:
            for row in PublishedSet(spec).rows("train"):
                for frames in (row.audio, row.vision):
                    assert frames is None or np.isfinite(frames.astype(np.float64)).shape == frames.shape
                row.text.encode(), row.id.encode()
            outcome = "read"
        except MsekitError as error:
            clear(error)
    return outcome


def run(folder: Path, files: int, seed: int) -> collections.Counter[str]:
    """Try so many mutated files; returns how many were read and how many refused."""
    rng = np.random.default_rng(seed)
    outcome: collections.Counter[str] = collections.Counter()
    with np.errstate(all="ignore"):
        for _ in range(files):
            data = SEEDS[int(rng.integers(len(SEEDS)))]
            mutate = mutated if rng.integers(2) else rearranged
            bad = mutate(data, rng)
            try:
                outcome[try_file(folder, bad)] += 1
            except BaseException:
                (Path(tempfile.gettempdir()) / "msekit-fuzz-failure.pkl").write_bytes(bad)
                raise
    return outcome


def main() -> None:
    """Run with limits on memory and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    resident = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (resident + MEMORY, resident + MEMORY))
    started, slowest = time.perf_counter(), 0.0
    total: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for part in range(0, options.files, 100):
            signal.alarm(SECONDS_PER_FILE * 100)
            begun = time.perf_counter()
            total += run(Path(folder), min(100, options.files - part), [options.seed, part])
            slowest = max(slowest, time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{sum(total.values())} files in {time.perf_counter() - started:.0f} s: {dict(total)}")  # noqa: T201
    print(f"peak memory {peak / 1e6:.0f} MB, slowest hundred {slowest:.1f} s, no other error")  # noqa: T201


if __name__ == "__main__":
    main()
