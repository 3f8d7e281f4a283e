"""Making the hidden states of a set's texts beside one evaluation pass over the same samples, alternating.

    python -m benchmarks.speed.states_speed --data ../shared/data [--datasets meld6] [--limit 200] [--layers 8 16 20]

One side makes the states of all texts from nothing and stores them, as a run's first start does. The others score every
label of the same samples once, in either layout, with an adapter of recipe `paper`. All splits count. Prints the ratio
of times: how many evaluation passes the states cost, once for all seeds, runs and baselines.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.measure import Side, Work, alternate, machine, spread
from benchmarks.speed.train_speed import LAYOUTS, in_layout, prepare_all
from msekit.backbones.hidden_states import StatesWanted
from msekit.data.batches.batch import Collator, evaluation_batches
from msekit.model.stored_states import states_table
from msekit.model.wording import standard_cue
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.training.build import Parts

Chosen = list[tuple[Collator, np.ndarray]]
"""Each split, and the positions that count."""


def chosen_of(parts: Parts, limit: int | None) -> Chosen:
    """Samples of all splits, by chance where there is a limit."""
    every = [(collator, place) for collator in parts.collators.values() for place in range(len(collator.split))]
    order = np.random.default_rng(0).permutation(len(every))[:limit]
    by_split: Chosen = []
    for collator in parts.collators.values():
        by_split.append((collator, np.array([every[n][1] for n in order if every[n][0] is collator], dtype=np.int64)))
    return by_split


def states_side(parts: Parts, chosen: Chosen, layers: tuple[int, ...]) -> Side:
    """The states of the samples' texts, made and stored anew in every block."""
    backbone, spec = parts.backbone, parts.spec
    wanted = StatesWanted(layers, tuple(backbone.encode(standard_cue(spec))))
    texts = [[collator.text_ids[place] for place in places] for collator, places in chosen]

    def block() -> Work:
        with tempfile.TemporaryDirectory() as folder:
            for some in texts:
                if some:
                    states_table(backbone, some, None, wanted, Reporter(quiet=True), Path(folder))
        return Work(sum(map(len, texts)), 0, 0.0)

    return Side(f"hidden states of layers {', '.join(map(str, layers))}", block)


def evaluation_side(config: RunConfig, parts: Parts, chosen: Chosen) -> Side:
    """Every label of the same samples scored once."""
    batches = []
    for collator, places in chosen:
        tokens, frames = collator.lengths()
        shares = evaluation_batches(tokens[places], frames[places], parts.evaluation_batch, 0, 1)
        batches += [(collator, places[share].tolist()) for share in shares]

    def block() -> Work:
        for collator, indices in batches:
            parts.model.score(collator(indices).to(parts.backbone.device)).cpu()
        return Work(sum(len(indices) for _, indices in batches), 0, 0.0)

    return Side(f"evaluation, {config.layout} layout", block)


def main() -> None:
    """Print a Markdown table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=["meld6"])
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", nargs="+", type=int, default=[8, 16, 20])
    parser.add_argument("--limit", type=int, help="samples, of all splits together [all]")
    parser.add_argument("--also", nargs="*", default=[], help="other ways to hold the LLM: int8, nf4")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in options.datasets:
        for config, parts in prepare_all(options, name, []):
            chosen = chosen_of(parts, options.limit)
            sides = [states_side(parts, chosen, tuple(options.layers))]
            sides += [evaluation_side(*in_layout(config, parts, layout), chosen) for layout in LAYOUTS]
            alternate(sides, options.rounds, device)
            held = f"{parts.backbone.model.dtype}, {config.model.quantization}"
            print(f"| {name}, {held} | samples | seconds | samples/s | states / this |\n|---|---|---|---|---|")
            for side in sides:
                ratios = [states / own for states, own in zip(sides[0].seconds, side.seconds, strict=True)]
                rates, seconds = spread(side.per_second("samples")), statistics.median(side.seconds)
                ratio = "" if side is sides[0] else spread(ratios)
                print(f"| {side.name} | {side.work[0].samples} | {seconds:.1f} | {rates} | {ratio} |")
            print(f"\n{options.backbone}, batch {options.batch_size}; {machine(device)}; {options.rounds} rounds.\n")


if __name__ == "__main__":
    main()
