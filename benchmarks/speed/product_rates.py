"""Rates of single fp32 products with a frozen weight on a CPU, in GFLOP/s, every way in turn.

    python -m benchmarks.speed.product_rates [--backbone smollm2-135m] [--threads 2] [--rows 224 528] [--rounds 20]

By torch's own product; by oneDNN, which reads the weight as it is; and by oneDNN with the weight laid out once, in the
blocks it takes by itself and in narrow ones (`packed_products.py`). Shapes are those of the backbone's layers, and of
its head at 16 rows. Medians of the rounds; some seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed.measure import machine
from msekit.backbones.cpu import packed_products
from msekit.backbones.cpu.packed_products import DirectProduct, PackedProduct, Product
from msekit.backbones.shape import shape_of


def ways_of(linear: nn.Linear, packs: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """The ways to multiply with a weight."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {"torch": Product(linear), "oneDNN": DirectProduct(linear)}
    if packs:
        own = packed_products._on_avx2
        for name, narrow in {"laid out": False, "narrow": True}.items():
            packed_products._on_avx2 = partial(lambda narrow, _: narrow, narrow)
            ways[name] = PackedProduct(linear)
            ways[name](torch.zeros(2, linear.in_features))  # which makes the copy
        packed_products._on_avx2 = own
    return ways


def rates(linear: nn.Linear, rows: int, rounds: int, packs: bool) -> dict[str, float]:
    """GFLOP/s of every way."""
    x, ways = torch.randn(rows, linear.in_features), ways_of(linear, packs)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way(x)
            taken[name].append(time.perf_counter() - started)
    flop = 2 * rows * linear.weight.numel()
    return {name: flop / statistics.median(seconds[1:]) / 1e9 for name, seconds in taken.items()}


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, nargs="+", default=[224, 528])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = shape_of(options.backbone)
    figures = shape.architecture
    cases = [
        (rows, k, n, True) for k, n in sorted({(s.inputs, s.outputs) for s in shape.linears}) for rows in options.rows
    ]
    cases.append((16, figures.hidden_size, figures.vocab_size, False))
    print("| rows, in, out | torch | oneDNN | laid out | in narrow blocks |\n|---|---|---|---|---|")
    for rows, k, n, packs in cases:
        linear = nn.Linear(k, n, bias=False).requires_grad_(False)
        found = rates(linear, rows, options.rounds, packs)
        cells = (f"{found[name]:.0f}" if name in found else "" for name in ("torch", "oneDNN", "laid out", "narrow"))
        print(f"| {rows}, {k}, {n} | {' | '.join(cells)} |")
    print(f"\n{machine(torch.device('cpu'))}; {options.rounds} rounds.")


if __name__ == "__main__":
    main()
