"""How far a run scales: an estimate from measured pieces, to 8, 64 and 512 GPUs, as a Markdown table.

    python -m benchmarks.speed.scaling [--local 20] [--network 12.5] [--latency 20] [--batch 16]

A step on N GPUs takes  t(N) = b / r + c(N):  b samples per GPU at r samples/s on one of them, and then, nothing
overlapped (so c is an upper bound), the adapter's S gradient bytes go round a ring inside each machine of g GPUs and,
1/g of them per GPU, round a ring over the N / g machines:

    c(N) = 2 (g-1)/g S / w + 2 (g-1) l  +  2 (m-1)/m (S/g) / (W/g) + 2 (m-1) l        g = min(N, 8),  m = N / g

w, W: bytes/s inside a machine per GPU, and out of a machine; l: latency of a message. Efficiency is (b / r) / t(N). For
N = 2 each sends S per step: `two_machines.py` counted 1.01 S on the network card.

With ZeRO-3 every one of L layers is gathered in the forward and again in the backward pass, round a ring, P bytes of
backbone in all:  z(N) = 2 (N-1)/N P / min(w, W) + 2 L (g + m - 2) l  (inside one machine: w instead of the minimum).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from msekit.paper import TABLE1

MEASURED = {
    "qwen-1.8b": ("meld", 79.0, 1.84e9, 24),
    "chatglm3-6b": ("mosei", 25.0, 6.24e9, 28),
}
"""Backbone → data set, train samples/s on one RTX 4090 (the authors' logs), parameters and layers of the backbone."""
GPUS = (8, 64, 512)
PER_MACHINE = 8


@dataclass(frozen=True)
class Links:
    """What the processes talk through."""

    local: float
    """Bytes/s between GPUs of a machine, per GPU."""
    network: float
    """Bytes/s out of a machine."""
    latency: float
    """Seconds of a message."""


def ring(size: float, members: int, speed: float, latency: float) -> float:
    """Seconds of a ring all-reduce."""
    return 2 * (members - 1) / members * size / speed + 2 * (members - 1) * latency


def adapter_seconds(gpus: int, size: float, links: Links) -> float:
    """Seconds in which the adapter's gradients are averaged."""
    here = min(gpus, PER_MACHINE)
    across = ring(size / here, gpus // here, links.network / here, links.latency)
    return ring(size, here, links.local, links.latency) + across


def gather_seconds(gpus: int, backbone: float, layers: int, links: Links) -> float:
    """Seconds in which ZeRO-3 gathers the backbone's bytes, forward and backward."""
    here = min(gpus, PER_MACHINE)
    speed = links.local if gpus == here else min(links.local, links.network)
    return 2 * (gpus - 1) / gpus * backbone / speed + 2 * layers * (here + gpus // here - 2) * links.latency


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", type=float, default=20.0, help="GB/s between GPUs of a machine [PCIe 4: 20]")
    parser.add_argument("--network", type=float, default=12.5, help="GB/s out of a machine [100 Gb/s: 12.5]")
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds of a message")
    parser.add_argument("--batch", type=int, default=16, help="samples per GPU and step")
    options = parser.parse_args()
    links = Links(options.local * 1e9, options.network * 1e9, options.latency * 1e-6)
    print("| backbone, data set | GPUs | step, ms | gradients, ms | samples/s | efficiency | ZeRO-3: GB, samples/s |")
    print("|---|---|---|---|---|---|---|")
    for backbone, (dataset, speed, parameters, layers) in MEASURED.items():
        size = TABLE1[backbone, dataset] * 1e6 * 4
        compute = options.batch / speed
        for gpus in (1, *GPUS):
            talk = adapter_seconds(gpus, size, links) if gpus > 1 else 0.0
            step = compute + talk
            gathered = step + gather_seconds(gpus, 2 * parameters, layers, links)
            print(
                f"| {backbone}, {dataset} | {gpus} | {step * 1e3:.0f} | {talk * 1e3:.1f} | "
                f"{gpus * options.batch / step:,.0f} | {compute / step:.1%} | "
                f"{2 * parameters / gpus / 1e9:.2f}, {gpus * options.batch / gathered:,.0f} |"
            )


if __name__ == "__main__":
    main()
