"""What text alone gives a linear model: the bar that a run on the same splits is measured against.

    python -m benchmarks.accuracy.text_baseline ../shared/data/meld6/meld6.yaml … [--limit-train 320]

TF-IDF of 1-grams and 2-grams, lower case, fitted on the train texts; logistic regression without class weights
(erc) or ridge regression whose answers are clipped to the label range (msa). Its strength is the one of the kit's
that does best on the validation split by the data set's key metric (WF1, MAE), the most regularised of equals;
the test split is looked at once. Beside it: the train split's majority class, or its mean. Prints one JSON list;
metrics and 95 % bootstrap intervals are those of `msekit.evaluation`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from msekit.baselines.text_linear import answer as answer_of
from msekit.baselines.text_linear import best_of
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.readers.published import PublishedSet
from msekit.errors import MsekitError
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import collapsed_to, metrics_of

PERMUTATION_SEED = 0
Split = tuple[list[str], np.ndarray]
"""Texts, and class numbers or intensities [N]."""


def read_splits(spec: DatasetSpec, limit_train: int | None) -> dict[str, Split]:
    """Texts and labels of the three splits; the train split cut to the first N of a seeded permutation."""
    published = PublishedSet(spec)
    splits = {}
    for split in SPLITS:
        pairs = [(row.text, row.label) for row in published.rows(split)]
        if split == "train" and limit_train is not None:
            chosen = np.random.default_rng(PERMUTATION_SEED).permutation(len(pairs))[:limit_train]
            pairs = [pairs[number] for number in chosen]
        labels = np.array([label for _, label in pairs], dtype=np.int64 if spec.task == "erc" else np.float64)
        splits[split] = ([text for text, _ in pairs], labels)
    return splits


def result(spec: DatasetSpec, model: str, truth: np.ndarray, prediction: np.ndarray, **facts: Any) -> dict[str, Any]:
    """One model's test metrics with their intervals."""
    metric_fn = metrics_of(spec)
    collapsed = collapsed_to(prediction.tolist())
    if collapsed is not None and spec.labels is not None:
        collapsed = spec.labels[int(collapsed)]
    metrics, confidence = metric_fn(truth, prediction), bootstrap(truth, prediction, metric_fn)
    return {"model": model, **facts, "metrics": metrics, "confidence": confidence, "collapsed_to": collapsed}


def measure(dataset: str, limit_train: int | None) -> dict[str, Any]:
    """The text baseline and the constant answer on one data set."""
    spec = resolve_dataset(dataset)
    splits = read_splits(spec, limit_train)
    train, valid, test = (splits[split] for split in SPLITS)
    model, strength, validation = best_of(spec, train, valid)
    if spec.labels is not None:
        majority = int(np.bincount(train[1], minlength=len(spec.labels)).argmax())
        constant: Any = spec.labels[majority]
        answer = np.full_like(test[1], majority)
    else:
        mean = float(train[1].mean())
        constant, answer = mean, np.full_like(test[1], mean)
    return {
        "dataset": spec.name,
        "key_metric": spec.key_metric,
        "samples": {split: len(splits[split][0]) for split in SPLITS},
        "results": [
            result(
                spec,
                "tf-idf + logistic regression" if spec.task == "erc" else "tf-idf + ridge",
                test[1],
                answer_of(model(test[0])),
                strength=strength,
                validation=validation,
            ),
            result(spec, "majority class" if spec.task == "erc" else "train mean", test[1], answer, answer=constant),
        ],
    }


def main() -> int:
    """Measure every data set that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="DATASET.yaml", help="a data set's YAML")
    parser.add_argument("--limit-train", type=int, metavar="N", help="train on N samples of a seeded permutation")
    arguments = parser.parse_args()
    if arguments.limit_train is not None and arguments.limit_train < 1:
        parser.error("--limit-train must be at least 1")
    try:
        print(json.dumps([measure(name, arguments.limit_train) for name in arguments.datasets], indent=2))
    except MsekitError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
