"""Speed of loading: an epoch's batches from the Arrow cache beside the published way, and beside the step they feed.

    python -m benchmarks.speed.data_speed --data ../shared/data --datasets ravdess meld6 mosi_utt [--rounds 4]

The published way, written from its description: the pickle's arrays in memory (float64, padded to the longest sample),
a `DataLoader` of torch in random order, texts tokenised in the batch and padded to the published limit. The kit's sides
have the settings of their recipe: `kit` also cuts still edges, averages frames and adds noise. One thread, alternating.
"Read" is what a batch holds of text tokens and frames, padding left out. Prints Markdown for speed/RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.measure import Side, Work, alternate, machine, spread
from benchmarks.speed.train_speed import kit_side as step_side
from msekit.data.batches.batch import Noise, global_batches
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import resolve_dataset
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training.build import Parts, build


class PublishedSet(Dataset[dict[str, Any]]):
    """A split as the published files hold it."""

    def __init__(self, table: SplitTable) -> None:
        self.table = table
        self.audio, self.vision = (padded([read(i) for i in range(len(table))]) for read in (table.audio, table.vision))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, its features as float32 tensors."""
        return {
            "text": self.table.texts[index],
            "audio": torch.tensor(self.audio[index], dtype=torch.float32),
            "vision": torch.tensor(self.vision[index], dtype=torch.float32),
            "audio_length": int(self.table.audio_lengths[index]),
            "vision_length": int(self.table.vision_lengths[index]),
            "label": float(self.table.labels[index]),
        }


def padded(sequences: list[np.ndarray]) -> np.ndarray:
    """(N, L, D) float64."""
    longest = max(len(frames) for frames in sequences)
    whole_NLD = np.zeros((len(sequences), longest, sequences[0].shape[1]))
    for row, frames in enumerate(sequences):
        whole_NLD[row, : len(frames)] = frames
    return whole_NLD


@dataclass(frozen=True)
class Padding:
    """Tokenises and pads a batch's texts, then stacks the samples."""

    parts: Parts

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Batch of the published way."""
        batch = torch.utils.data.default_collate([{k: v for k, v in s.items() if k != "text"} for s in samples])
        ids = torch.zeros(len(samples), self.parts.text_limit, dtype=torch.long)
        for row, sample in enumerate(samples):
            tokens = self.parts.backbone.encode(sample["text"])[: self.parts.text_limit]
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        return batch | {"text_ids": ids}


def read_in(parts: Parts) -> Work:
    """An epoch's samples, and their text tokens and frames."""
    collator = parts.collators["train"]
    tokens = sum(map(len, collator.text_ids))
    frames = int(collator.split.audio_lengths.sum() + collator.split.vision_lengths.sum())
    return Work(len(collator.split), tokens + frames, 0.0)


def published_side(parts: Parts, batch_size: int) -> Side:
    """An epoch of the published way."""
    split, work = PublishedSet(parts.cache.split("train")), read_in(parts)
    loader = DataLoader(split, batch_size, shuffle=True, collate_fn=Padding(parts))

    def block() -> Work:
        for _ in loader:
            pass
        return work

    return Side("published way", block)


def kit_side(name: str, parts: Parts, batch_size: int, noise: float) -> Side:
    """An epoch of the kit's batches, in their order."""
    collator = replace(parts.collators["train"], noise=Noise(noise, 0, 0) if noise else None)
    work = read_in(parts)

    def block() -> Work:
        for batch in global_batches(*collator.lengths(), batch_size, 0, 0):
            collator(batch)
        return work

    return Side(name, block)


def main() -> None:
    """Print a Markdown table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=["ravdess", "meld6", "mosi_utt"])
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2, help="training steps a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for dataset in options.datasets:
        path = options.data / dataset / f"{dataset}.yaml"
        name = str(path) if path.is_file() else dataset
        task, sizes = resolve_dataset(name).task, [f"optim.batch_size={options.batch_size}"]
        sides: list[Side] = []
        for recipe in ("paper", "kit"):
            fields = {"backbone": options.backbone, "dataset": name, "recipe": recipe, "output": "none"}
            config = resolve(fields, task=task, overrides=sizes)
            parts = build(config, Reporter(quiet=True), splits=("train",))
            sides = sides or [published_side(parts, options.batch_size)]
            sides.append(kit_side(f"kit, recipe {recipe}", parts, options.batch_size, config.noise))
        training = step_side(config, parts, options.steps)  # of recipe kit
        training.name = "training on it, recipe kit"
        alternate([*sides, training], options.rounds, device)
        step = options.batch_size / statistics.median(training.per_second("samples"))
        print(f"| {dataset} | samples/s | read/s | ms a batch | of a step | × {sides[0].name} |")
        print("|---|---|---|---|---|---|")
        for side in [*sides, training]:
            samples = side.per_second("samples")
            seconds = options.batch_size / statistics.median(samples)
            pairs = zip(samples, sides[0].per_second("samples"), strict=True)
            ratios = spread([mine / theirs for mine, theirs in pairs]) if side in sides[1:] else ""
            read = f"{statistics.median(side.per_second('useful_tokens')):,.0f}" if side is not training else ""
            print(
                f"| {side.name} | {spread(samples)} | {read} | {1000 * seconds:.2f} | {seconds / step:.2%} | {ratios} |"
            )
        print(
            f"\n{options.backbone}, batch {options.batch_size}; {machine(device)}; {options.rounds} rounds.\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
