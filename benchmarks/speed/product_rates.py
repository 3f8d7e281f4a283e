"""Rates of single fp32 products with a frozen weight on a CPU, in GFLOP/s, every way in turn.

    python -m benchmarks.speed.product_rates [--backbone smollm2-135m] [--threads 2] [--rows 224 528] [--rounds 20]

By torch's own product, and by oneDNN with the weight laid out once for it (`packed_products.py`). Shapes are those of
the backbone's layers. Medians of the rounds; some seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn

from benchmarks.speed.measure import machine
from msekit.backbones.cpu.packed_products import PackedProduct, Product
from msekit.backbones.shape import shape_of


def rates(linear: nn.Linear, rows: int, rounds: int) -> dict[str, float]:
    """GFLOP/s of every way to multiply with a weight."""
    x = torch.randn(rows, linear.in_features)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"torch": Product(linear), "laid out": PackedProduct(linear)}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first makes the copy
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
    sizes = sorted({(layer.inputs, layer.outputs) for layer in shape_of(options.backbone).linears})
    print("| rows, in, out | torch | laid out |\n|---|---|---|")
    for (inputs, outputs), rows in product(sizes, options.rows):
        linear = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
        cells = (f"{rate:.0f}" for rate in rates(linear, rows, options.rounds).values())
        print(f"| {rows}, {inputs}, {outputs} | {' | '.join(cells)} |")
    print(f"\n{machine(torch.device('cpu'))}; {options.rounds} rounds.")


if __name__ == "__main__":
    main()
