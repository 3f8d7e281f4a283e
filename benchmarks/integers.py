"""Integer products on a CPU (`--quantization w8a8`): what they do to a training step, what they cost and give.

    python benchmarks/integers.py --data ../shared/data [--dataset meld6] [--threads 1] [--rounds 5]

First one training step's gradients and scores beside fp32, on four batches of 16 with a fresh adapter: the cosine of
the gradients, the mean and the largest distance of a label's log-probability, and how many times as quick training is.
Then that of training and scoring in both layouts, and of the products alone. Processor time by turns. Prints Markdown;
about eight minutes on one core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from changes import by_turns, row
from eval_speed import kit_side as scoring
from torch import Tensor
from train_speed import LAYOUTS, Prepared, even_batches, in_layout, kit_side, prepare

from msekit.backbones import integer
from msekit.reporter import Reporter
from msekit.training.distributed import accelerator_for
from msekit.training.loop import Run

WAYS = ("int8: the weights alone", "w8a8 with one integer a number", "**w8a8**")


def outcome(prepared: Prepared, batches: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The adapter's gradients in one row, and the scores, of some batches together."""
    _, parts = prepared
    scores = []
    parts.model.adapter.zero_grad()
    for indices in batches:
        batch = parts.collators["train"](indices)
        parts.model(batch).backward()
        scores.append(parts.model.score(batch).flatten())
    gradients = [p.grad.flatten() for p in parts.model.adapter.parameters() if p.grad is not None]
    return torch.cat(gradients), torch.cat(scores)


def held_as(way: str, get: partial[Prepared]) -> Prepared:
    """A backbone held that way."""
    prepared = get(["model.quantization=" + ("int8" if way == WAYS[0] else "w8a8")])
    rounding = prepared[1].backbone.rounding
    if way == WAYS[1] and rounding is not None:
        rounding.steps = copy.copy(rounding.steps)
        rounding.steps.round_twice = torch.compile(round_once, dynamic=True)
        rounding.steps.finish_twice = torch.compile(finish_once, dynamic=True)
    return prepared


def round_once(x_MK: Tensor) -> integer.Rounded:
    """What the second integer is measured against."""
    return integer._round(x_MK, torch.ones(x_MK.shape[1]))


def finish_once(sums_MN: Tensor, unit_M1: Tensor, scale_N: Tensor) -> Tensor:
    """Likewise."""
    return sums_MN.float() * unit_M1 * scale_N


def roundings(get: partial[Prepared], plain: Prepared, rounds: int) -> Iterator[str]:
    """What each way of rounding does to a step, and its time."""
    run = Run(*plain, accelerator_for(plain[1].backbone.device), Reporter(quiet=True))
    [batches] = even_batches([run], 4)
    gradient, scores = outcome(plain, batches)
    for title in WAYS:
        way = held_as(title, get)
        other, rounded = outcome(way, batches)
        cosine = torch.nn.functional.cosine_similarity(other, gradient, dim=0)
        far = (rounded - scores).abs()
        taken = by_turns({"0": kit_side(*plain, 2).run, "1": kit_side(*way, 2).run}, rounds)  # type: ignore[dict-item]
        yield row(f"{title} | {cosine:.3f} | {far.mean():.3f} | {far.max():.3f}", taken["0"], taken["1"])


def times(plain: Prepared, integers: Prepared, rounds: int) -> Iterator[str]:
    """How many times as quick as fp32, in processor time."""
    for layout in LAYOUTS:
        for title, side in (("training", kit_side), ("scoring", scoring)):
            ways = {name: side(*in_layout(*each, layout), 2).run for name, each in (("0", plain), ("1", integers))}
            taken = by_turns(ways, rounds)  # type: ignore[arg-type]
            yield row(f"w8a8, {title}, {layout}", taken["0"], taken["1"])


def products(rounds: int) -> str:
    """How many times as quick as fp32's the integer products of smollm2's MLP are, for 16 samples of 40 tokens."""
    a, b = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((640, 576), (1536, 576)))
    numbers, weights = a.float(), b.float()

    def plain() -> None:
        for _ in range(20):
            numbers @ weights.T

    def whole() -> None:
        for _ in range(20):
            torch._int_mm(a, b.T)

    taken = by_turns({"0": plain, "1": whole}, rounds)
    return row("the products alone, 640 x 576 x 1536", taken["0"], taken["1"])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dataset", default="meld6")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = options.data / options.dataset / f"{options.dataset}.yaml"
    get = partial(prepare, options.backbone, str(path), 16)
    plain = get([])
    print("| held as | cosine of gradients | scores, mean | scores, largest | times as quick |\n|---|---|---|---|---|")
    for line in roundings(get, plain, options.rounds):
        print(line, flush=True)
    print("\n| change | times as quick |\n|---|---|")
    for line in times(plain, get(["model.quantization=w8a8"]), options.rounds):
        print(line, flush=True)
    print(products(options.rounds))


if __name__ == "__main__":
    main()
