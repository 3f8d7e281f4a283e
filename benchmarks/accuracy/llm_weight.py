"""How the LLM's weight beside the opinion is best chosen: on the validation speakers of each fold, for those left out.

    python -m benchmarks.accuracy.llm_weight RUNS [--source FOLDER] [--without 19,20]

RUNS is the folder of `msekit train … --folds all` with recipe best, on emotions whose labels are one token each. Every
fold's plug-in scores its validation and its test speakers once; the weights then cost nothing. Prints loss, accuracy,
UAR and WF1 of all folds' test samples together; of a folder of seeds, mean and deviation over them. `--without`:
speakers whose answers choose nothing, such as those of a published test split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.metrics import erc_metrics
from msekit.evaluation.scoring import Scores, score_split
from msekit.model.product import WEIGHTS, Product, smallest_as_good
from msekit.process import flush_denormals
from msekit.reporter import Reporter
from msekit.runs.files import REPORT
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


RULES: dict[str, Callable[[np.ndarray], float]] = {
    "the best": best,
    "the smallest within one standard error": lambda losses_WN: smallest_as_good(torch.from_numpy(losses_WN).double()),
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
    folds = sorted(file.parent for file in options.runs.glob(f"fold-*/seed-*/{REPORT}"))
    for run in folds or sorted(file.parent for file in options.runs.glob(f"seed-*/{REPORT}")):
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
    print("| rule | loss | accuracy | UAR | WF1 | weights |\n|---|---|---|---|---|---|")
    for rule, runs in answers.items():
        parts_of = [runs] if folds else [[run] for run in runs]
        rows = [measured(np.concatenate([r[1] for r in p]), np.concatenate([r[2] for r in p])) for p in parts_of]
        spread = "" if len(rows) == 1 else " ± {:.3f}"
        cells = [("{:.3f}" + spread).format(np.mean(c), np.std(c, ddof=len(rows) > 1)) for c in zip(*rows, strict=True)]
        print(f"| {rule} | {' | '.join(cells)} | {', '.join(f'{weight:.2f}' for weight, _, _ in runs)} |", flush=True)


def measured(scores_NK: np.ndarray, truth_N: np.ndarray) -> tuple[float, ...]:
    """Loss, accuracy, UAR and WF1."""
    found = erc_metrics(truth_N, scores_NK.argmax(axis=1), tuple(map(str, range(scores_NK.shape[1]))))
    loss = -scores_NK[np.arange(len(truth_N)), truth_N].mean()
    return float(loss), found["acc"], found["uar"], found["wf1"]


if __name__ == "__main__":
    main()
