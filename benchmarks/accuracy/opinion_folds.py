"""What a setting does for the opinion of `mse-states`, over speakers left out. No test split is looked at.

    python -m benchmarks.accuracy.opinion_folds DATASET.yaml [--folds 4] [--seeds 1111,2222,3333]
        [--set optim.opinion_lr=2e-3]... [--all-frames]

The opinion trains alone, without the LLM: hidden states are read once and cached, a fold takes seconds to a minute. The
train split's speakers are dealt to the folds in turn, and every fold is answered by an opinion that has not learned
from its speakers (features are standardised, and classes weighed, over the whole train split). Prints the metrics of
all answers together.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np

from msekit.data.catalogue import resolve_dataset
from msekit.evaluation.scoring import Scores
from msekit.process import flush_denormals, seed_everything
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training import build, features, opinion

SHOWN = {"erc": ("uar", "acc", "wf1", "macro_f1"), "msa": ("corr", "mae", "acc2_nonzero")}
BACKBONE = "smollm2-135m"
QUIET = Reporter(quiet=True)


def speakers_of(parts: build.Parts) -> np.ndarray:
    """(N,) the speaker of each training sample: its own column, or the last part of ids such as ravdess'."""
    table = parts.cache.split("train")
    if any(speaker is None for speaker in table.speakers):
        return np.array([name.rsplit("-", 1)[-1] for name in table.ids])
    return np.array(table.speakers)


def measure(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Metrics of the train split's answers, each by an opinion that has learned nothing from its speaker."""
    spec = resolve_dataset(str(options.dataset))
    wanted = {"backbone": BACKBONE, "dataset": str(options.dataset), "recipe": "best", "seed": seed}
    edges, truths = [], []
    for fold in range(options.folds):
        config = resolve(wanted | {"output": Path(tempfile.gettempdir())}, task=spec.task, overrides=options.set)
        parts = build.build(config, QUIET, splits=("train", "valid"))
        speakers = speakers_of(parts)
        left_out = np.isin(speakers, np.unique(speakers)[fold :: options.folds])
        seed_everything(seed)
        with patch.object(opinion, "training_subset", lambda _, __, kept=~left_out: np.flatnonzero(kept)):
            opinion.train_opinion(config, parts, QUIET, heed=lambda: None)
        scores = opinion.opinions(parts, "train")
        edges.append(scores.edges[left_out])
        truths.append(scores.truths[left_out])
    together = Scores(np.concatenate(edges), np.concatenate(truths), scores.labels)
    return together.metrics(parts.spec, config.evaluation.estimate) | {"loss": together.loss()}


def main() -> None:
    """Print a line per seed, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="description with speakers, or ids that end with them")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", default="1111,2222,3333")
    parser.add_argument("--set", action="append", default=[], help="a setting of the run, KEY=VALUE")
    parser.add_argument("--all-frames", action="store_true", help="statistics over all frames, resting or not")
    options = parser.parse_args()
    shown = (*SHOWN[resolve_dataset(str(options.dataset)).task], "loss")
    flush_denormals()
    if options.all_frames:
        features.resting_values = lambda frames_LD: [None] * frames_LD.shape[1]
    rows = []
    for seed in map(int, options.seeds.split(",")):
        rows.append([measure(options, seed)[name] for name in shown])
        print(
            f"seed {seed}:", *(f"{name} {value:.3f}" for name, value in zip(shown, rows[-1], strict=True)), flush=True
        )
    means = [(statistics.fmean(column), statistics.pstdev(column)) for column in zip(*rows, strict=True)]
    print("mean:", *(f"{name} {mean:.3f} ± {std:.3f}" for name, (mean, std) in zip(shown, means, strict=True)))


if __name__ == "__main__":
    main()
