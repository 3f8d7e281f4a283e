"""Scores → what files say of every sample: its line of the predictions, and how often each label is predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from msekit.evaluation.scoring import Scores
from msekit.model.answers import Answers, estimate_for, named, put, records_of
from msekit.runs.predictions import prediction_line


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
                put(said, one, named(one.space, truth))
            elif not np.isnan(truth):  # a label whose siblings are not all known
                said.setdefault(one.target, {})[one.label] = bool(truth)
        records.append(said or None)
    return records


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
