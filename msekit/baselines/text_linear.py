"""`text-linear`: TF-IDF and a linear model on the text alone, the bar under every multimodal result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.data.description_checks import UNSPACED
from msekit.errors import MsekitError, needs_extra
from msekit.evaluation.metrics import goodness, metrics_of

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""C of the logistic regression, and 1 / alpha of the ridge: from most to least regularised."""
Split = tuple[Sequence[str], np.ndarray]
"""Texts, and class numbers or intensities [N]."""
Scorer = Callable[[Sequence[str]], np.ndarray]


def needs_scikit_learn() -> None:
    """Raise where it is absent, before anything is read."""
    if find_spec("sklearn") is None:
        raise needs_extra("linear baselines need scikit-learn", "stats")


def fit(spec: DatasetSpec, train: Split, strength: float) -> Scorer:
    """TF-IDF of 1-grams and 2-grams, logistic regression without class weights (erc) or ridge (msa).

    Args:
        spec: The data set; Chinese is cut into characters.
        train: The train split.
        strength: One of `STRENGTHS`.

    Returns:
        Texts → class probabilities (N, C), or intensities (N,) clipped to the range.

    Raises:
        MsekitError: Samples of one class alone, texts without a word, or no scikit-learn.
    """
    needs_scikit_learn()
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    analyzer = "char" if spec.language in UNSPACED else "word"
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), lowercase=True, analyzer=analyzer)
    if spec.range is None and len(np.unique(train[1])) < 2:
        raise MsekitError(f"the {len(train[1])} training samples are of one class", fix="Train on more of them.")
    try:
        features = vectorizer.fit_transform(train[0])
    except ValueError as error:  # empty vocabulary
        raise MsekitError(f"the {len(train[0])} training texts have no word: {error}") from error
    if spec.range is None:
        classifier = LogisticRegression(C=strength, solver="newton-cg", max_iter=1000)
        classifier.fit(features, train[1].astype(np.int64))

        def probabilities(texts: Sequence[str]) -> np.ndarray:
            shares_NC = np.zeros((len(texts), len(spec.labels or ())))
            shares_NC[:, classifier.classes_] = classifier.predict_proba(vectorizer.transform(texts))
            return shares_NC

        return probabilities
    low, high = spec.range
    ridge = Ridge(alpha=1.0 / strength).fit(features, train[1])
    return lambda texts: np.clip(ridge.predict(vectorizer.transform(texts)), low, high)


def best_of(spec: DatasetSpec, train: Split, valid: Split) -> tuple[Scorer, float, float]:
    """The strength that does best on validation by the key metric, the most regularised of equals.

    Returns:
        The model, its strength and its validation score.
    """
    models = {strength: fit(spec, train, strength) for strength in STRENGTHS}
    scores = {
        strength: metrics_of(spec)(valid[1], answer(model(valid[0])))[spec.key_metric]
        for strength, model in models.items()
    }
    best = max(STRENGTHS, key=lambda strength: goodness(spec.key_metric, scores[strength]))
    return models[best], best, scores[best]


def answer(scores: np.ndarray) -> np.ndarray:
    """Class probabilities (N, C) → class numbers; intensities as they are."""
    return scores.argmax(axis=1) if scores.ndim == 2 else scores
