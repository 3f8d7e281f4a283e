"""What audio, vision and text tell a linear model, alone and together: what there is to be heard in a data set at all.

    python -m benchmarks.accuracy.features_tell ../shared/data/{ravdess/ravdess,meld6/meld6,mosi_utt/mosi_utt}.yaml

Features: mean and deviation over a sample's frames (a single vector as it is), the mean of SmolLM2-135M's text
embeddings; standardised by the train split, each kind scaled to the same total variance. Ridge or logistic regression,
its strength by the validation split's figure. Prints Markdown. A minute on one core.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.data.cache.cache import Cache, prepare
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.evaluation.metrics import metrics_of

SHOWN = {"ravdess": "acc", "meld6": "wf1", "mosi_utt": "corr"}
KINDS = ("text", "audio", "vision")
STRENGTHS = 10.0 ** np.arange(-3, 3.1, 0.5)


def features(table: SplitTable, kind: str, backbone: Backbone) -> np.ndarray:
    """One row per sample; zeros where it has no frames."""
    if kind == "text":
        ids = [torch.tensor(backbone.encode(text) or [0]) for text in table.texts]
        return np.stack([backbone.embed(each).float().mean(dim=0).numpy() for each in ids])
    samples = [np.asarray(getattr(table, kind)(row), dtype=np.float64) for row in range(len(table))]
    width = samples[0].shape[1]
    means = np.stack([frames.mean(axis=0) if len(frames) else np.zeros(width) for frames in samples])
    if all(len(frames) < 2 for frames in samples):
        return means
    return np.concatenate(
        [means, np.stack([frames.std(axis=0) if len(frames) else np.zeros(width) for frames in samples])], axis=1
    )


def standardised(splits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the train split, features that never vary left out, to a total variance of 1."""
    mean, spread = splits["train"].mean(axis=0), splits["train"].std(axis=0)
    varies = spread > 1e-6
    scale = spread[varies] * np.sqrt(varies.sum())
    limit = 5 / np.sqrt(varies.sum())
    return {name: ((x[:, varies] - mean[varies]) / scale).clip(-limit, limit) for name, x in splits.items()}


def best(spec: DatasetSpec, metric: str, x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> tuple[float, float]:
    """The figure on validation and test, with the strength that does best on validation."""
    figure: Callable[..., dict[str, float]] = metrics_of(spec)
    found = []
    for strength in STRENGTHS:
        model = Ridge(strength) if spec.task == "msa" else LogisticRegression(C=1 / strength, max_iter=2000)
        model.fit(x["train"], y["train"])
        valid, test = (figure(y[split], model.predict(x[split]))[metric] or 0.0 for split in SPLITS[1:])
        found.append((valid, test))
    return max(found)


def rows(spec: DatasetSpec, cache: Cache, backbone: Backbone) -> list[str]:
    """Each kind, and all of them together."""
    metric = SHOWN.get(spec.name, spec.key_metric)
    tables = {split: cache.split(split) for split in SPLITS}
    labels = {split: np.asarray(table.labels) for split, table in tables.items()}
    known = [kind for kind in KINDS if kind == "text" or getattr(cache.info, kind).width]
    found = {
        kind: standardised({split: features(table, kind, backbone) for split, table in tables.items()})
        for kind in known
    }
    together = {split: np.concatenate([found[kind][split] for kind in known], axis=1) for split in SPLITS}
    lines = [f"| {spec.name}, {metric} | valid | test |", "|---|---|---|"]
    for name, x in (*found.items(), (" + ".join(known), together)):
        valid, test = best(spec, metric, x, labels)
        lines.append(f"| {name} | {valid:.3f} | {test:.3f} |")
    return lines


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="DATASET.yaml")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    backbone = load_backbone("smollm2-135m", device="cpu")
    for name in options.datasets:
        spec = resolve_dataset(name)
        print("\n".join(rows(spec, prepare(spec), backbone)) + "\n", flush=True)


if __name__ == "__main__":
    main()
