"""Memory and speed of preparing a file of the MOSEI layout, and of loading batches from its cache.

    python -m benchmarks.memory.prepare_memory --gigabytes 2

Writes a pickle as the published ones are (one file, float64, padded to 500 × 74 and 375 × 35), prepares it in a process
of its own, and reads that process's peak of anonymous memory from /proc. A plain restricted load, which copies what it
reads, is measured beside it. Then the batches of an epoch are collated with both recipes, and nothing else is done.
Everything is written to a temporary folder that is removed.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPES = {"audio": (500, 74), "vision": (375, 35)}
SHARES = {"train": 0.714, "valid": 0.082, "test": 0.204}
SMOLLM2_SAMPLES_PER_S = 10.0  # a training step of SmolLM2-135M on two CPU cores

MEASURED = """
import re, sys, threading, time
from pathlib import Path
peak = {"RssAnon": 0, "VmRSS": 0}
def status():
    text = Path("/proc/self/status").read_text()
    return {key: int(re.search(key + r":\\s+(\\d+)", text)[1]) * 1024 for key in peak}
def watch():
    while True:
        for key, value in status().items():
            peak[key] = max(peak[key], value)
        time.sleep(0.005)
def work():
    %s
import numpy, pyarrow, datasets, msekit.data.cache.cache
before = status()["RssAnon"]
threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
work()
seconds = time.perf_counter() - started
print(before, peak["RssAnon"], peak["VmRSS"], seconds)
"""
PREPARE = """from msekit.data.cache.cache import CacheSettings, prepare
    from msekit.data.catalogue import resolve_dataset
    spec = resolve_dataset("mosei", Path(sys.argv[1]))
    prepare(spec, CacheSettings(dtype=sys.argv[3]), Path(sys.argv[2]))"""
VERIFY = """from msekit.data.catalogue import resolve_dataset
    from msekit.data.verify import verify
    verify(resolve_dataset("mosei", Path(sys.argv[1]))).check()"""
PLAIN = """import pickle
    class Restricted(pickle.Unpickler):
        def find_class(self, module, name):
            assert module.startswith("numpy"), module
            return super().find_class(module, name)
    with open(sys.argv[1], "rb") as file:
        Restricted(file).load()"""


def write_mosei(path: Path, gigabytes: float) -> int:
    """Write the file split by split, so that this process needs little memory too; returns its samples."""
    samples = int(gigabytes * 1e9 / sum(8 * frames * width for frames, width in SHAPES.values()))
    rng = np.random.default_rng(0)
    content = {}
    for split, share in SHARES.items():
        count = round(samples * share)
        columns: dict[str, object] = {
            "raw_text": [f"text number {number} of {split}" for number in range(count)],
            "id": [f"{split}$_${number}" for number in range(count)],
            "regression_labels": rng.uniform(-3, 3, count),
        }
        for key, (frames, width) in SHAPES.items():
            array_NLD = np.lib.format.open_memmap(
                path.with_name(f"{split}-{key}.npy"), mode="w+", dtype=np.float64, shape=(count, frames, width)
            )
            lengths = rng.integers(frames // 10, frames // 2, count)
            for row, length in enumerate(lengths):
                array_NLD[row, :length] = rng.standard_normal((length, width), dtype=np.float32)
            array_NLD.flush()
            columns[key], columns[f"{key}_lengths"] = np.asarray(array_NLD), lengths.tolist()
        content[split] = columns
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)
    for part in path.parent.glob("*.npy"):
        part.unlink()
    return samples


def measured(work: str, *arguments: object) -> tuple[int, int, int, float]:
    """Run in a process of its own: anonymous bytes before and at the peak, resident bytes at the peak, seconds."""
    command = [sys.executable, "-c", MEASURED % work, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak, resident, seconds = done.stdout.split()
    return int(before), int(peak), int(resident), float(seconds)


def loading(root: Path, source: Path) -> None:
    """Collate an epoch of the train split with the recipes' settings; print what a second of one core collates."""
    import torch

    from msekit.data.batches.ahead import ahead
    from msekit.data.batches.batch import Collator, Noise, global_batches
    from msekit.data.batches.preprocess import Preprocessor
    from msekit.data.cache.cache import prepare
    from msekit.data.catalogue import resolve_dataset
    from msekit.settings.config import DataConfig
    from msekit.settings.recipes import PAPER

    torch.set_num_threads(1)
    cache = prepare(resolve_dataset("mosei", source), root=root)
    table = cache.split("train")
    texts = [list(range(30))] * len(table)
    for recipe in ("kit", "paper"):
        settings = DataConfig(**(PAPER["data"] if recipe == "paper" else {}))
        ways = {
            key: Preprocessor.of(getattr(cache.info, key), settings.standardise, settings.trim, settings.max_frames)
            for key in SHAPES
        }
        noise = Noise(settings.noise, 0, 0) if settings.noise else None
        labels = np.zeros(len(table), dtype=np.int64)
        collator = Collator(table, texts, labels, ways["audio"], ways["vision"], noise=noise)
        tokens, frames = collator.lengths()
        started = time.process_time()  # of this process alone: the machine may be shared
        batches = global_batches(tokens, frames, 16, 1111, 0)
        for batch in batches:
            collator(batch)
        seconds = time.process_time() - started
        samples = len(table) / seconds
        waits = [waited(made, len(batches)) for made in (map(collator, batches), ahead(collator, batches))]
        print(
            f"| {recipe} | {len(batches) / seconds:.0f} | {samples:.0f} | {samples / SMOLLM2_SAMPLES_PER_S:.0f} × | "
            f"{waits[0]:.2f} ms | {waits[1]:.2f} ms |",
            flush=True,
        )


def waited(made: Iterator[object], count: int) -> float:
    """Milliseconds (median) that a batch is waited for, where between two of them another device works 10 ms."""
    waits = []
    for _ in range(count):
        started = time.perf_counter()
        next(made)
        waits.append(time.perf_counter() - started)
        time.sleep(0.01)
    return 1000 * statistics.median(waits)


def main() -> None:
    """Write, measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, root = Path(folder) / "unaligned_50.pkl", Path(folder) / "cache"
        samples = write_mosei(path, options.gigabytes)
        size = path.stat().st_size
        print(f"file: {size / 1e9:.2f} GB, {samples} samples\n")
        print("| what | anonymous memory at the peak | of the file | resident | seconds | MB/s |")
        print("|---|---|---|---|---|---|")
        for name, work, dtype in (
            ("plain restricted load", PLAIN, ""),
            ("verify", VERIFY, ""),
            ("prepare, float32", PREPARE, "float32"),
            ("prepare, float16", PREPARE, "float16"),
        ):
            _before, peak, resident, seconds = measured(work, path, root, dtype)
            print(
                f"| {name} | {peak / 1e6:.0f} MB | {peak / size:.2f} | {resident / 1e6:.0f} MB | {seconds:.1f} | "
                f"{size / 1e6 / seconds:.0f} |",
                flush=True,
            )
        head = "recipe | batches of 16 per s of one core | samples per s | of what a smollm2 step needs"
        print(f"\n| {head} | waited | waited, made ahead |")
        print("|---|---|---|---|---|---|")
        loading(root, path)


if __name__ == "__main__":
    main()
