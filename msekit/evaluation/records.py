"""Scores → what files say of every sample: the answer, the probabilities, the truth.

Of several targets each is a mapping from targets: a class's name, a value of a range, or of labels the names that
hold (the truth of labels of which some are not known: label → whether it holds, for those that are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from msekit.evaluation.scoring import Scores
from msekit.model.answers import Answers, Asked, estimate_for
from msekit.model.labels import LabelSpace
from msekit.runs.predictions import prediction_line
from msekit.settings.choices import Estimate

Record = tuple[Any, Any]
"""An answer and the probability of every label; of a truth, nothing."""


def records_of(answers: Answers, edges_BE: np.ndarray, estimate: Estimate) -> list[tuple[Any, dict[str, Any]]]:
    """Each sample's answer, and the probability of every label.

    Args:
        answers: What is asked.
        edges_BE: Log-probability of every edge.
        estimate: The point estimate.
    """
    columns = []
    for one in answers.asked:
        own_BE = edges_BE[:, one.edges]
        values_B = one.space.predict(own_BE, estimate_for(one.space.task, estimate) if answers.several else estimate)
        columns.append((one, values_B, one.space.distribution(own_BE)))
    records = []
    for row in range(len(edges_BE)):
        given = [(one, named(one.space, values_B[row]), shares_BK[row]) for one, values_B, shares_BK in columns]
        shares = [dict(zip(one.space.names, shares_K.tolist(), strict=True)) for one, _, shares_K in given]
        if not answers.several:
            records.append((given[0][1], shares[0]))
            continue
        said: dict[str, Any] = {}
        scores: dict[str, dict[str, float]] = {}
        for (one, value, _), own in zip(given, shares, strict=True):
            _put(said, one, value)
            scores.setdefault(one.target, {}).update(own if one.label is None else {one.label: own["yes"]})
        records.append((said, scores))
    return records


def named(space: LabelSpace, value: float) -> str | float:
    """A value as files say it: a class by its name."""
    return float(value) if space.task == "msa" else space.names[int(value)]


def truths_of(answers: Answers, truths: np.ndarray) -> list[Any]:
    """Each sample's truth, None where it has none; of several targets those that it has."""
    if not answers.several:
        return [None if np.isnan(truth) else named(answers.space, truth) for truth in truths]
    records = []
    for row in truths:
        said: dict[str, Any] = {}
        unknown = {one.target for one, truth in zip(answers.asked, row, strict=True) if np.isnan(truth)}
        for one, truth in zip(answers.asked, row, strict=True):
            if one.target not in unknown:
                _put(said, one, named(one.space, truth))
            elif not np.isnan(truth):  # a label whose siblings are not all known
                said.setdefault(one.target, {})[one.label] = bool(truth)
        records.append(said or None)
    return records


def _put(said: dict[str, Any], one: Asked, value: str | float) -> None:
    """Add an answer to those of the other questions."""
    if one.label is None:
        said[one.target] = value
    else:
        said.setdefault(one.target, []).extend([one.label] if value == "yes" else [])


def prediction_lines(scores: Scores, ids: Sequence[str], estimate: str) -> list[Any]:
    """The lines of `predictions-test.jsonl`."""
    answers = Answers.only(scores.answers)
    records = records_of(answers, scores.edges, estimate)  # type: ignore[arg-type]
    truths = truths_of(answers, scores.truths)
    return [
        prediction_line(id, prediction, shares, truth)
        for id, (prediction, shares), truth in zip(ids, records, truths, strict=True)
    ]


def prediction_counts(scores: Scores, estimate: str) -> dict[str, int]:
    """How often each label is predicted (intensities by the nearest grid value), labels never predicted left out.

    Of several targets `target:label`.
    """
    found: Counter[str] = Counter()
    for one, own in scores.each():
        way = estimate_for(one.space.task, estimate) if one.target else estimate  # type: ignore[arg-type]
        counts = np.bincount(one.space.indices(own.predictions(way)), minlength=len(one.space))
        for name, count in zip(one.space.names, counts.tolist(), strict=True):
            if one.label is None:
                found[f"{one.target}:{name}" if one.target else name] = count
            elif name == "yes":
                found[f"{one.target}:{one.label}"] = count
    return {name: count for name, count in found.items() if count}
