"""Integer products on a CPU (`--quantization w8a8`): what each safeguard is worth, and what they cost and give.

    python benchmarks/integers.py --data ../shared/data [--dataset meld6] [--threads 1] [--rounds 5]

First one training step's gradients and scores beside fp32, on four batches of 16 with a fresh adapter: the cosine of
the gradients, and the mean and the largest distance of a label's log-probability. Then processor time by turns. Prints
Markdown; about five minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from changes import by_turns, row
from eval_speed import kit_side as scoring
from torch import Tensor
from train_speed import LAYOUTS, Prepared, even_batches, in_layout, kit_side, prepare

from msekit.backbones import integer
from msekit.reporter import Reporter
from msekit.training.distributed import accelerator_for
from msekit.training.loop import Run

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8: the weights alone": ("int8", {}),
    "w8a8: one integer, no outliers apart": ("w8a8", {"OUTLIERS": 0, "TOLERATED": 1.0}),
    "w8a8: one integer": ("w8a8", {"TOLERATED": 1.0}),
    "w8a8: two integers where needed, no outliers apart": ("w8a8", {"OUTLIERS": 0}),
    "**w8a8**": ("w8a8", {}),
    "w8a8: two integers everywhere": ("w8a8", {"TOLERATED": 0.0}),
}
"""Title → how the LLM is held, and constants of `integer.py` that are set otherwise."""


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


def held_as(kind: str, changed: dict[str, Any], get: partial[Prepared]) -> Prepared:
    """A backbone held that way."""
    before = {name: getattr(integer, name) for name in changed}
    vars(integer).update(changed)
    try:
        return get([f"model.quantization={kind}"])
    finally:
        vars(integer).update(before)


def roundings(get: partial[Prepared], plain: Prepared) -> Iterator[str]:
    """What each way of rounding does to a step."""
    run = Run(*plain, accelerator_for(plain[1].backbone.device), Reporter(quiet=True))
    batches = even_batches(run, 4)
    gradient, scores = outcome(plain, batches)
    for title, (kind, changed) in WAYS.items():
        other, rounded = outcome(held_as(kind, changed, get), batches)
        cosine = torch.nn.functional.cosine_similarity(other, gradient, dim=0)
        far = (rounded - scores).abs()
        yield f"| {title} | {cosine:.3f} | {far.mean():.3f} | {far.max():.3f} |"


def times(plain: Prepared, integers: Prepared, rounds: int) -> Iterator[str]:
    """How many times as quick as fp32, in processor time."""
    for layout in LAYOUTS:
        for title, side in (("training", kit_side), ("scoring", scoring)):
            ways = {name: side(*in_layout(*each, layout), 2).run for name, each in (("0", plain), ("1", integers))}
            taken = by_turns(ways, rounds)  # type: ignore[arg-type]
            yield row(f"w8a8, {title}, {layout}", taken["0"], taken["1"])


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
    print("| held as | cosine of gradients | scores, mean | scores, largest |\n|---|---|---|---|")
    for line in roundings(get, plain):
        print(line, flush=True)
    print("\n| change | times as quick |\n|---|---|")
    for line in times(plain, get(["model.quantization=w8a8"]), options.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
