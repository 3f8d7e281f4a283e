"""What single changes give: with and without, by turns in one run, in processor time, so that other jobs blur it less.

    python -m benchmarks.speed.changes --data ../shared/data [--only TITLE] [--threads 1] [--rounds 8] [--wall]

Decoder layers written out, against transformers' with all that is below; their weights laid out once for their
products, and as they are; the copies in blocks of 16 columns, and in those that oneDNN takes by itself; the head by
oneDNN, and by torch's own product; MLPs and norms whose gradients are written out, and the last layer at the columns
that are read, in transformers' layers; the size of evaluation batches. Prints Markdown: medians of the ratios round by
round, and their range. About half an hour on one core. `--wall` takes the time that passes instead, on a machine that
does nothing else: with several threads some of it is spent waiting for one another.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed.train_speed import LAYOUTS, even_batches, in_layout, prepare
from msekit.backbones.cpu import packed_products
from msekit.backbones.cpu.packed_products import DirectProduct, PackedProduct, Product
from msekit.backbones.passes import lean_mlp_norm
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


def frozen_layers(parts: Parts, block: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds with transformers' layers, made leaner and shortened, and with those that are written out."""

    def way(works: bool) -> Callable[[], None]:
        def run() -> None:
            parts.backbone.frozen_layers.works = works
            block()

        return run

    taken = by_turns({"theirs": way(False), "written": way(True)}, rounds)
    parts.backbone.frozen_layers.works = True
    return taken["theirs"], taken["written"]


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


def narrow_blocks(parts: Parts, block: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds with copies of the weights in the blocks that oneDNN takes by itself, and in narrow ones."""
    packed = [each for each in parts.backbone.frozen_layers._products if isinstance(each, PackedProduct)]
    as_it_is, copies = packed_products._on_avx2, {}
    for narrow in (False, True):
        packed_products._on_avx2 = partial(lambda narrow, _: narrow, narrow)
        for product in packed:
            product.forget()
        block()
        copies[narrow] = [dict(product._copies) for product in packed]
    packed_products._on_avx2 = as_it_is

    def way(narrow: bool) -> Callable[[], None]:
        def run() -> None:
            for product, own in zip(packed, copies[narrow], strict=True):
                product._copies = own
            block()

        return run

    taken = by_turns({"wide": way(False), "narrow": way(True)}, rounds)
    for product, own in zip(packed, copies[True], strict=True):
        product._copies = own
    return taken["wide"], taken["narrow"]


def head(block: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds with the head by torch's own product, and by oneDNN."""
    call = DirectProduct.__call__

    def way(chosen: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            DirectProduct.__call__ = chosen  # type: ignore[method-assign]
            block()

        return run

    taken = by_turns({"torch": way(Product.__call__), "oneDNN": way(call)}, rounds)
    DirectProduct.__call__ = call  # type: ignore[method-assign]
    return taken["torch"], taken["oneDNN"]


def last_layer(parts: Parts, block: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds with the whole last layer, and with it at the columns that are read."""

    def way(shortens: bool) -> Callable[[], None]:
        def run() -> None:
            parts.backbone.shortens = shortens
            block()

        return run

    taken = by_turns({"whole": way(False), "shortened": way(True)}, rounds)
    return taken["whole"], taken["shortened"]


def leaner_parts(block: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds with MLPs and norms left to autograd, and with their gradients written out."""
    written = {"GatedSiLU": lean_mlp_norm.GatedSiLU, "FrozenRMSNorm": lean_mlp_norm.FrozenRMSNorm}
    plain = {"GatedSiLU": SimpleNamespace(apply=plain_gate), "FrozenRMSNorm": SimpleNamespace(apply=plain_norm)}

    def way(chosen: dict[str, Any]) -> Callable[[], None]:
        def run() -> None:
            vars(lean_mlp_norm).update(chosen)
            block()

        return run

    taken = by_turns({"plain": way(plain), "written": way(written)}, rounds)
    vars(lean_mlp_norm).update(written)
    return taken["plain"], taken["written"]


def plain_gate(gate: Tensor, up: Tensor) -> Tensor:
    """As transformers computes it."""
    return F.silu(gate) * up


def plain_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers computes it."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


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

    def in_transformers_layers(measured: Pairs) -> tuple[list[float], list[float]]:
        parts.backbone.frozen_layers.works = False
        taken = measured()
        parts.backbone.frozen_layers.works = True
        return taken

    def larger(size: int) -> tuple[list[float], list[float]]:
        taken = by_turns({"16": partial(scoring, 16), "more": partial(scoring, size)}, rounds)
        return taken["16"], taken["more"]

    parts.model.score(test(middle[:2]))  # which finds out what the architecture takes
    assert parts.backbone.frozen_layers.works
    blocks: dict[str, Callable[[], None]] = {"training": training, "scoring": partial(scoring, 16)}
    changes: dict[str, Pairs] = {}
    for name, block in blocks.items():
        changes[f"layers written out, {name}"] = partial(frozen_layers, parts, block, rounds)
        changes[f"weights laid out, {name}"] = partial(laid_out, block, rounds)
        changes[f"weights in narrow blocks, {name}"] = partial(narrow_blocks, parts, block, rounds)
        changes[f"head by oneDNN, {name}"] = partial(head, block, rounds)
        changes[f"last layer shortened, {name}"] = partial(
            in_transformers_layers, partial(last_layer, parts, block, rounds)
        )
    changes["MLPs and norms written out, training"] = partial(
        in_transformers_layers, partial(leaner_parts, training, rounds)
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
    options = parser.parse_args()
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
