"""`llm-linear`: a linear model on what the frozen LLM itself makes of the text, the bar under every plug-in.

It reads hidden states of one layer of the LLM (of the last token behind a cue, and their mean over the text) and, where
that is better on validation, statistics of the frames: mean, deviation, 20th and 80th percentile of each feature.
Ridge regression (msa) or logistic regression (erc); the layer, whether audio and vision are read, the scale of the
blocks and the strength are chosen by the key metric on validation. Nothing is drawn: every seed gives the same.

Shapes: N samples, L layers, d width of the hidden states, F features of all blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from msekit.backbones.hidden_states import StatesWanted, depth
from msekit.baselines.text_linear import STRENGTHS, answer, needs_scikit_learn
from msekit.baselines.texts import TextFrom, load_frozen, tokens_of
from msekit.data.batches.batch import Collator
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.cache.cache import Cache
from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.errors import MsekitError
from msekit.evaluation.metrics import goodness, higher_is_better, metrics_of
from msekit.evaluation.scoring import SHUFFLE_SEED
from msekit.model.stored_states import StatesTable, states_table
from msekit.model.wording import standard_cue
from msekit.reporter import Reporter

EVERY = 4
"""Layers between two whose states are tried; the last one is tried too."""
PERCENTILES = (20, 80)
FARTHEST = 5.0
"""Deviations beyond which a feature of a frame is cut."""
_ROWS = 256  # texts whose states are taken from the cache at a time
_CONSTANT = 1e-6  # deviation / |mean| below which a feature is constant: fp32's and fp16's rounding

Block = dict[str, np.ndarray]
"""Split, or `shuffled` for the test split with other samples' audio and vision → features (N, F)."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Features (N, F) → class probabilities (N, C), or intensities (N,) clipped to the range."""


@dataclass(frozen=True)
class Choice:
    """What validation chooses."""

    layer: int
    hears: bool
    """Whether audio and vision are read."""
    even: bool
    """Whether all blocks of features have the same total variance; otherwise all features have the same."""
    strength: float


def fit_llm_linear(
    spec: DatasetSpec, cache: Cache, chosen: np.ndarray, text: TextFrom, reporter: Reporter
) -> dict[str, Any]:
    """Choose on validation, and answer the test split.

    Args:
        spec: The data set.
        cache: Its cache.
        chosen: Positions of the training samples.
        text: The LLM, and what it reads.
        reporter: Where progress goes.

    Returns:
        Scores of the test split, shuffled ones, and what the report says of the model.

    Raises:
        MsekitError: No such LLM, samples of one class alone, or no scikit-learn where there are classes.
    """
    if spec.range is None:
        needs_scikit_learn()
    assert text.backbone is not None
    backbone = load_frozen(text.backbone, reporter)
    layers = tuple(sorted({*range(0, depth(backbone) + 1, EVERY), depth(backbone)}))
    wanted = StatesWanted(layers, tuple(backbone.encode(standard_cue(spec))))
    read = {split: tokens_of(backbone, cache.split(split), spec, text) for split in SPLITS}
    tables = {split: states_table(backbone, *read[split], wanted, reporter) for split in SPLITS}
    frames = frame_blocks(cache)
    train, valid = cache.split("train").labels[chosen], cache.split("valid").labels
    key, metric_fn = spec.key_metric, metrics_of(spec)
    ways = [(False, False), *([(True, False), (True, True)] if frames else [])]
    best, by_layer, scores = Choice(0, False, False, 0.0), dict[int, float](), Block()
    with reporter.bar("layers and strengths", len(layers) * len(ways) * len(STRENGTHS)) as advance:
        for number, layer in enumerate(layers):
            texts = text_blocks(tables, number)
            for hears, even in ways:
                features = joined([*texts, *(frames if hears else [])], chosen, even)
                for strength, predict in fits(spec, features["train"], train):
                    score = goodness(key, metric_fn(valid, answer(predict(features["valid"])))[key])
                    if not by_layer or score > max(by_layer.values()):
                        best = Choice(layer, hears, even, strength)
                        scores = {name: predict(features[name]) for name in ("test", "shuffled")}
                    by_layer[layer] = max(score, by_layer.get(layer, score))
                    advance(1, f"layer {layer}")
    return {
        "scores": scores["test"],
        "shuffled": scores["shuffled"],
        "history": [],
        "best_epoch": 0,
        "strength": best.strength,
        "layer": best.layer,
        "reads": ["text", *(name for name in _modalities(cache) if best.hears)],
        "even_blocks": best.even,
        "valid_by_layer": {str(layer): score if higher_is_better(key) else -score for layer, score in by_layer.items()},
        "backbone_fingerprint": backbone.fingerprint,
        "dtype": str(backbone.model.dtype),
    }


def text_blocks(tables: dict[str, StatesTable], number: int) -> list[Block]:
    """The states of one of the layers: a block of the last token's, and one of the mean."""
    blocks: list[Block] = [{}, {}]
    for split, table in tables.items():
        starts = range(0, len(table), _ROWS)
        parts = [table(range(start, min(start + _ROWS, len(table))))[:, number].numpy() for start in starts]
        for kind, block in enumerate(blocks):
            block[split] = np.concatenate([part[:, kind] for part in parts])
    return [block | {"shuffled": block["test"]} for block in blocks]


def frame_blocks(cache: Cache) -> list[Block]:
    """A block of statistics for each modality that the set has."""
    blocks = []
    test = cache.split("test")
    others = Collator(test, [], test.labels).shuffled(SHUFFLE_SEED).frames_of
    for name in _modalities(cache):
        standardise = Preprocessor.of(getattr(cache.info, name), True, 0.0, None)
        block = Block()
        for split in SPLITS:
            frames = getattr(cache.split(split), name)
            every = range(len(cache.split(split)))
            block[split] = np.stack([frame_statistics(standardise(frames(index))) for index in every])
        blocks.append(block | {"shuffled": block["test"][others[name]]})
    return blocks


def _modalities(cache: Cache) -> list[str]:
    return [name for name in MODALITIES if getattr(cache.info, name).width]


def frame_statistics(frames_LD: np.ndarray) -> np.ndarray:
    """Mean, deviation and percentiles of standardised frames (L, D): (4·D,) float32; zeros where there are none."""
    if not len(frames_LD):
        return np.zeros((2 + len(PERCENTILES)) * frames_LD.shape[1], np.float32)
    cut_LD = frames_LD.clip(-FARTHEST, FARTHEST)
    parts = [cut_LD.mean(axis=0), cut_LD.std(axis=0), *np.percentile(cut_LD, PERCENTILES, axis=0)]
    return np.concatenate(parts).astype(np.float32)


def joined(blocks: Sequence[Block], chosen: np.ndarray, even: bool) -> Block:
    """Blocks side by side, standardised by the training samples: together they have a variance of 1.

    Args:
        blocks: All to be joined.
        chosen: Positions of the training samples.
        even: Whether each block has as much of the variance as the others; otherwise each feature has.
    """
    total = sum(block["train"].shape[1] for block in blocks)
    parts: list[Block] = []
    for block in blocks:
        train = block["train"][chosen].astype(np.float64)
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        deviation[deviation <= _CONSTANT * np.maximum(np.abs(mean), _CONSTANT)] = np.inf  # what never changes is 0
        share = 1 / (train.shape[1] * len(blocks)) if even else 1 / total
        scale = np.sqrt(share) / deviation
        parts.append({name: ((values - mean) * scale).astype(np.float32) for name, values in block.items()})
    whole = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return whole | {"train": whole["train"][chosen]}


def fits(spec: DatasetSpec, features_NF: np.ndarray, labels_N: np.ndarray) -> Iterator[tuple[float, Predict]]:
    """A model for each strength, from most to least regularised.

    Raises:
        MsekitError: Samples of one class alone.
    """
    if spec.range is not None:
        return _ridges(spec.range, features_NF, labels_N)
    if len(np.unique(labels_N)) < 2:
        raise MsekitError(f"the {len(labels_N)} training samples are of one class", fix="Train on more of them.")
    return _logistic(len(spec.labels or ()), features_NF, labels_N.astype(np.int64))


def _ridges(
    span: tuple[float, float], features_NF: np.ndarray, labels_N: np.ndarray
) -> Iterator[tuple[float, Predict]]:
    """Ridge regression for all strengths from one decomposition, of the smaller of the two products."""
    x_NF, center = features_NF.astype(np.float64), labels_N.mean()
    wide = x_NF.shape[1] > len(x_NF)
    values, vectors = np.linalg.eigh(x_NF @ x_NF.T if wide else x_NF.T @ x_NF)
    target = labels_N - center if wide else x_NF.T @ (labels_N - center)
    turned = vectors.T @ target
    for strength in STRENGTHS:
        solved = vectors @ (turned / (values.clip(0) + 1 / strength))
        weights_F = x_NF.T @ solved if wide else solved
        yield strength, partial(_intensities, weights_F, center, span)


def _intensities(weights_F: np.ndarray, center: float, span: tuple[float, float], x_NF: np.ndarray) -> np.ndarray:
    return np.clip(x_NF @ weights_F + center, *span)


def _logistic(classes: int, features_NF: np.ndarray, labels_N: np.ndarray) -> Iterator[tuple[float, Predict]]:
    """Logistic regression without class weights, each strength's from the weights of the one before."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(warm_start=True, max_iter=500, tol=1e-3)
    for strength in STRENGTHS:
        model.set_params(C=strength).fit(features_NF, labels_N)
        yield strength, partial(_probabilities, copy.deepcopy(model), classes)


def _probabilities(model: Any, classes: int, x_NF: np.ndarray) -> np.ndarray:
    shares_NC = np.zeros((len(x_NF), classes))
    shares_NC[:, model.classes_] = model.predict_proba(x_NF)
    return shares_NC
