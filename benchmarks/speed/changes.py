"""What single changes give: with and without, by turns in one run, in processor time, so that other jobs blur it less.

    python -m benchmarks.speed.changes --data ../shared/data [--only TITLE] [--threads 1] [--rounds 8] [--wall]

Decoder layers written out, against transformers' with all other ways; their weights laid out once for their products,
and as they are; MLPs and norms whose gradients are written out, and the last layer at the columns that are read, in
transformers' layers; the size of evaluation batches. Prints Markdown: medians of the ratios round by round, and their
range. About twenty minutes on one core. `--wall` takes the time that passes instead, on a machine that does nothing
else: with several threads some of it is spent waiting for one another. `--lay-out` lays weights out on every CPU, and
measures what it gives, also where msekit does not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.train_speed import LAYOUTS, even_batches, in_layout, prepare
from msekit.backbones.cpu import packed_products
from msekit.backbones.cpu.packed_products import PackedProduct, Product
from msekit.backbones.holding import LAID_OUT_ON, WAYS
from msekit.data.batches.batch import evaluation_batches
from msekit.distributed.accelerator import accelerator_for
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.training.build import Parts
from msekit.training.loop import Run

SIZES = (16, 32, 64)
clock = time.process_time
Pairs = Callable[[], tuple[list[float], list[float]]]
"""Measures seconds without a change and with it, round by round."""


def by_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way in every round, in an order that turns; the first round is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = clock()
            ways[name]()
            taken[name].append(clock() - started)
    return {name: seconds[1:] for name, seconds in taken.items()}


def row(title: str, base: list[float], changed: list[float]) -> str:
    """A line of the table: how many times as quick."""
    ratios = [before / after for before, after in zip(base, changed, strict=True)]
    return f"| {title} | **{statistics.median(ratios):.3f}** ({min(ratios):.3f}–{max(ratios):.3f}) |"


def ways(
    parts: Parts, fewer: set[str], more: set[str], block: Callable[[], None], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of a pass that takes fewer shorter ways, and of one that takes more."""

    def by(names: set[str]) -> Callable[[], None]:
        def run() -> None:
            with parts.backbone.passes.limited(names):
                block()

        return run

    taken = by_turns({"fewer": by(fewer), "more": by(more)}, rounds)
    return taken["fewer"], taken["more"]


def laid_out(block: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds with weights multiplied as they are, and laid out for their products."""
    methods = ("__call__", "plus", "back", "back_plus")
    plain, packed = ({name: vars(kind)[name] for name in methods} for kind in (Product, PackedProduct))

    def way(chosen: dict[str, Any]) -> Callable[[], None]:
        def run() -> None:
            for name, method in chosen.items():
                setattr(PackedProduct, name, method)
            block()

        return run

    taken = by_turns({"plain": way(plain), "packed": way(packed)}, rounds)
    for name, method in packed.items():
        setattr(PackedProduct, name, method)
    return taken["plain"], taken["packed"]


def rows(config: RunConfig, parts: Parts, rounds: int, steps: int, only: str) -> Iterator[str]:
    """Measure every change in one layout whose title holds `only`."""
    run = Run(config, parts, accelerator_for(parts.backbone.device), Reporter(quiet=True))
    train, test = parts.collators["train"], parts.collators["test"]
    [batches] = even_batches([run], steps)
    order = list(chain(*evaluation_batches(*test.lengths(), 1, 0, 1)))
    middle = order[len(order) // 2 - SIZES[-1] :][: 2 * SIZES[-1]]  # texts of middling length

    def training() -> None:
        for indices in batches:
            run.engine.backward(train(indices), 1 / len(indices), last=True)
            run.engine.step(1e-6)

    def scoring(size: int) -> None:
        for start in range(0, len(middle), size):
            parts.model.score(test(middle[start : start + size]))

    def larger(size: int) -> tuple[list[float], list[float]]:
        taken = by_turns({"16": partial(scoring, 16), "more": partial(scoring, size)}, rounds)
        return taken["16"], taken["more"]

    able = set(WAYS) - {"compiled"}
    theirs = able - {"written-out"}
    blocks: dict[str, Callable[[], None]] = {"training": training, "scoring": partial(scoring, 16)}
    changes: dict[str, Pairs] = {}
    for name, block in blocks.items():
        changes[f"layers written out, {name}"] = partial(ways, parts, theirs, able, block, rounds)
        if not parts.backbone.passes.refused.get("written-out with weights laid out"):
            changes[f"weights laid out, {name}"] = partial(laid_out, block, rounds)
        changes[f"last layer shortened, {name}"] = partial(ways, parts, theirs - {"last-layer"}, theirs, block, rounds)
    changes["MLPs and norms written out, training"] = partial(
        ways, parts, theirs - {"lean-parts"}, theirs, training, rounds
    )
    changes |= {f"scored {size} instead of 16 at a time": partial(larger, size) for size in SIZES[1:]}
    for title, measured in changes.items():
        if only in title:
            yield row(f"{title}, {config.layout}", *measured())


def main() -> None:
    """Print the table."""
    global clock
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dataset", default="meld6")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="batches of 16 in a turn")
    parser.add_argument("--only", default="", help="changes whose title holds this")
    parser.add_argument("--wall", action="store_true", help="the time that passes, not the processor's")
    parser.add_argument("--lay-out", action="store_true", help="lay weights out on every CPU")
    options = parser.parse_args()
    if options.lay_out:
        packed_products.cpu_vendor = lambda: LAID_OUT_ON  # type: ignore[assignment]
    if options.wall:
        clock = time.perf_counter
    torch.set_num_threads(options.threads)
    path = options.data / options.dataset / f"{options.dataset}.yaml"
    config, first = prepare(options.backbone, str(path), 16, [])
    print("| change | times as quick |\n|---|---|")
    for layout in LAYOUTS:
        for line in rows(*in_layout(config, first, layout), options.rounds, options.steps, options.only):
            print(line, flush=True)


if __name__ == "__main__":
    main()
