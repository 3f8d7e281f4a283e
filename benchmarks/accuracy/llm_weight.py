"""How the LLM's weight beside the opinion is best chosen: on the validation speakers of each fold, for those left out.

    python -m benchmarks.accuracy.llm_weight RUNS [--source FOLDER] [--without 19,20]

RUNS is the folder of `msekit train … --folds all` with recipe best, on emotions whose labels are one token each. Every
fold's plug-in scores its validation and its test speakers once; the weights then cost nothing. Prints loss, accuracy
and UAR of all folds' test samples together. `--without`: speakers whose answers choose nothing, such as those of a
published test split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.scoring import Scores, score_split
from msekit.model.product import WEIGHTS, Product
from msekit.process import flush_denormals
from msekit.reporter import Reporter
from msekit.studies.evaluate import open_run

QUIET = Reporter(quiet=True)
CAP = 0.5


def losses(product: Product, scores: Scores) -> np.ndarray:
    """(W, N) of every weight that is tried."""
    llm, opinion, label = tensors(scores)
    rows = torch.arange(len(label))
    return np.stack([-product(llm, opinion, weight)[rows, label].numpy() for weight in WEIGHTS])


def tensors(scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """The LLM's edges, the opinion's, and the labels' positions."""
    assert scores.llm is not None
    assert scores.opinion is not None
    labels = torch.from_numpy(scores.labels.indices(scores.truths))
    return torch.from_numpy(scores.llm), torch.from_numpy(scores.opinion), labels


def best(losses_WN: np.ndarray) -> float:
    """The weight of the least loss."""
    return WEIGHTS[int(losses_WN.mean(axis=1).argmin())]


def smallest_as_good(losses_WN: np.ndarray) -> float:
    """The smallest within one standard error of it."""
    worse_WN = losses_WN - losses_WN[losses_WN.mean(axis=1).argmin()]
    within = worse_WN.mean(axis=1) <= worse_WN.std(axis=1) / np.sqrt(worse_WN.shape[1])
    return WEIGHTS[int(np.flatnonzero(within)[0])]


RULES: dict[str, Callable[[np.ndarray], float]] = {
    "the best": best,
    "the smallest within one standard error": smallest_as_good,
    "half of the best": lambda losses_WN: best(losses_WN) / 2,
    f"the best, at most {CAP}": lambda losses_WN: min(CAP, best(losses_WN)),
    "0: the opinion alone": lambda _: 0.0,
    "1": lambda _: 1.0,
}


def main() -> None:
    """Print a row for each rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--source", type=Path, help="where the features lie")
    parser.add_argument("--without", default="", help="speakers to leave out, comma-separated")
    options = parser.parse_args()
    flush_denormals()
    left_out = options.without.split(",")
    answers: dict[str, list[tuple[float, np.ndarray, np.ndarray]]] = {rule: [] for rule in RULES}
    for run in sorted(options.runs.glob("fold-*/seed-*")):
        _, _, parts = open_run(run, ("valid", "test"), source=options.source, reporter=QUIET)
        accelerator, product = accelerator_for(parts.backbone.device), parts.model.product
        assert isinstance(product, Product)
        valid, test = (
            score_split(parts.model, parts.collators[name], parts.evaluation_batch, accelerator, QUIET, name)
            for name in ("valid", "test")
        )
        kept = ~np.isin([str(speaker) for speaker in parts.cache.split("test").speakers], left_out)
        losses_WN = losses(product, valid)
        llm, opinion, label = tensors(test)
        for rule, choose in RULES.items():
            weight = choose(losses_WN)
            answers[rule].append((weight, product(llm, opinion, weight).numpy()[kept], label.numpy()[kept]))
    print("| rule | loss | accuracy | UAR | weights |\n|---|---|---|---|---|")
    for rule, folds in answers.items():
        scores = np.concatenate([edges for _, edges, _ in folds])
        truth = np.concatenate([label for _, _, label in folds])
        said = scores.argmax(axis=1)
        recalls = [(said[truth == label] == label).mean() for label in np.unique(truth)]
        loss, accuracy = -scores[np.arange(len(truth)), truth].mean(), (said == truth).mean()
        weights = ", ".join(f"{weight:.2f}" for weight, _, _ in folds)
        print(f"| {rule} | {loss:.3f} | {accuracy:.3f} | {np.mean(recalls):.3f} | {weights} |")


if __name__ == "__main__":
    main()
