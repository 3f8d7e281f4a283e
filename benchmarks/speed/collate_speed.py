"""What it takes to make a batch: frames conditioned anew for every batch beside those that an epoch kept, by turns.

    python -m benchmarks.speed.collate_speed [--rounds 5] [--batches 40]

The made data of `benchmarks/gpu/speed.py` (MELD's widths and frames) and sets as long as SIMS-V2's, batches of 16
samples and of five seeds' 80. Both sides have the noise of recipe `kit`. Processor milliseconds a batch, one thread,
the first epoch (in which nothing is kept yet) apart. Prints Markdown for speed/RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.speed import MadeTable
from benchmarks.speed.measure import machine, spread
from msekit.data.batches.batch import Collator, Noise
from msekit.data.batches.kept_frames import KeptFrames
from msekit.data.batches.preprocess import Preprocessor
from msekit.settings.config import DataConfig

LONG = {"audio": (925, 25), "vision": (232, 177)}
"""Frames and features of SIMS-V2."""


def table_of(long: bool) -> MadeTable:
    """Samples of MELD's lengths, or all as long as SIMS-V2's longest."""
    table = MadeTable(7)
    if long:
        for name, shape in LONG.items():
            setattr(table, f"{name}_LD", table.random.standard_normal(shape, dtype=np.float32))
            getattr(table, f"{name}_lengths")[:] = shape[0]
    return table


def sides(table: MadeTable, settings: DataConfig) -> dict[str, Collator]:
    """The collators beside one another."""
    ways = {
        name: Preprocessor(mean=[0.0] * width, std=[1.0] * width, trim=settings.trim, max_frames=settings.max_frames)
        for name, width in (("audio", table.audio_LD.shape[1]), ("vision", table.vision_LD.shape[1]))
    }
    ids: list[Any] = [list(range(length)) for length in table.tokens]
    anew = Collator(table, ids, table.labels, ways["audio"], ways["vision"])  # type: ignore[arg-type]
    anew = replace(anew, noise=Noise(settings.noise, 1111, 0))
    return {"anew": anew, "kept": replace(anew, kept=KeptFrames(table, ways))}  # type: ignore[arg-type]


def milliseconds(collator: Collator, size: int, batches: int) -> float:
    """Processor time of a batch."""
    started = time.process_time()
    for number in range(batches):
        collator(range(number * size, (number + 1) * size))
    return (time.process_time() - started) * 1e3 / batches


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine(torch.device('cpu'))}\n")
    print("| frames | samples | anew, ms | first epoch, ms | kept, ms | anew / kept |\n|---|---|---|---|---|---|")
    for name, long in (("MELD", False), ("SIMS-V2", True)):
        for size in (16, 80):
            both = sides(table_of(long), DataConfig())
            first = milliseconds(both["kept"], size, options.batches)
            times: dict[str, list[float]] = {side: [] for side in both}
            for _ in range(options.rounds):
                for side, collator in both.items():
                    times[side].append(milliseconds(collator, size, options.batches))
            ratios = [anew / kept for anew, kept in zip(times["anew"], times["kept"], strict=True)]
            anew, kept = (statistics.median(times[side]) for side in ("anew", "kept"))
            print(f"| {name} | {size} | {anew:.2f} | {first:.2f} | {kept:.2f} | {spread(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
