"""`predictions-test.jsonl`: a line per test sample, and the file as arrays. No torch.

    {"id": "dia3_utt4", "truth": "joy", "prediction": "neutral", "scores": {"neutral": 0.61, "joy": 0.39}}

Of several targets truth, prediction and scores are mappings from targets (`evaluation/records.py`):

    {"id": "7", "truth": {"mood": "joy", "signs": ["smile"]}, "prediction": …, "scores": {"mood": {"joy": 0.9, …}, …}}

`predict` writes the same lines without the truth. Reports and comparisons are made from the arrays, without a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import of_target, refuse_several
from msekit.errors import MsekitError, brief
from msekit.json_file import read_json_lines
from msekit.runs.files import PREDICTIONS, check_digest, digest_of, write_lines
from msekit.words import reason

Array = NDArray[Any]
_ROUNDED = 1e-4
"""How far from 1 the rounded shares of some hundred labels, computed in 16 bit, come."""
Answer = str | float | dict[str, Any]
"""A label's name, or an intensity; of several targets a mapping from each to its own, of labels a list."""


def in_words(answer: Any) -> str:
    """A target's answer as people read it."""
    if isinstance(answer, list):
        return ", ".join(answer) or "none"
    return f"{answer:+.2f}" if isinstance(answer, float) else str(answer)


@dataclass(frozen=True)
class Predictions:
    """N samples that have a label, K labels."""

    ids: list[str]
    truth: Array
    """(N,) class numbers or intensities."""
    prediction: Array
    """(N,) likewise."""
    values: Array
    """(K,) class numbers or intensities of the labels; empty where no distribution was written."""
    distribution: Array
    """(N, K) probabilities of the labels."""


def prediction_line(
    id: str, prediction: Answer, scores: Mapping[str, Any], truth: Answer | None = None
) -> dict[str, Any]:
    """One sample's line; the scores are rounded to 8 decimals.

    Args:
        id: Of the sample.
        prediction: The answer.
        scores: Label → probability, or target → those of its labels; empty where the model has no distribution.
        truth: None where it is not known: the line then has no such key.
    """
    rounded = {
        label: _rounded(share) if isinstance(share, Mapping) else round(float(share), 8)
        for label, share in scores.items()
    }
    answer = {} if truth is None else {"truth": truth}
    return {"id": id, **answer, "prediction": prediction, "scores": rounded}


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {label: round(float(share), 8) for label, share in scores.items()}


def write_predictions(folder: Path, lines: Iterable[dict[str, Any]]) -> str:
    """Write a run's test predictions, a `prediction_line` per sample; the digest that its report is to hold."""
    write_lines(folder / PREDICTIONS, list(lines))
    return digest_of((folder / PREDICTIONS).read_bytes())


def read_predictions(folder: Path, spec: DatasetSpec, target: str = "") -> Predictions:
    """Read a run's predictions of the test samples that have a label.

    Args:
        folder: The seed's folder.
        spec: Its data set; emotions are turned into their numbers.
        target: Which of several targets, one with classes or a range.

    Raises:
        MsekitError: The file is missing or damaged: a label that the set has not, a number that is not finite, scores
            that are no distribution, or other labels in one line than in the first.
    """
    file = folder / PREDICTIONS
    if target:
        spec = of_target(spec, target)
    refuse_several(spec, "reading a run's predictions as one column")
    from msekit.runs.report import read_report  # of use to reports alone, not to whoever predicts

    written = read_json_lines(file, "predictions file")
    if target:
        written = [_of_target(line, target) for line in written if isinstance(line, dict)]
    report = read_report(folder)
    check_digest(file.read_bytes(), None if report is None else report.predictions_sha256, file)
    try:
        number = {label: place for place, label in enumerate(spec.labels or ())}
        lines = [line for line in written if "truth" in line]
        kind = int if number else float
        truth, prediction = (
            np.array([number[line[key]] if number else _finite(line[key]) for line in lines], kind)
            for key in ("truth", "prediction")
        )
        names = list(written[0]["scores"])
        values = np.array([number[name] if number else _finite(float(name)) for name in names])
        distribution = np.array([_distribution(line["scores"], names) for line in lines]).reshape(
            len(lines), len(names)
        )
        return Predictions([_name(line["id"]) for line in lines], truth, prediction, values, distribution)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise MsekitError(f"the predictions are damaged: {reason(error)}", where=file) from error


def _of_target(line: dict[str, Any], target: str) -> dict[str, Any]:
    """A line of several targets as if one were all."""
    parts = {key: line.get(key) for key in ("truth", "prediction", "scores")}
    own = {key: part[target] for key, part in parts.items() if isinstance(part, dict) and target in part}
    return {"id": line.get("id"), **own}


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{brief(value)} is no finite number")
    return float(value)


def _distribution(scores: Any, names: list[str]) -> list[float]:
    if list(scores) != names:
        raise ValueError("the lines have not the same labels")
    shares = [_finite(share) for share in scores.values()]
    if shares and not (min(shares) >= 0 and math.isclose(sum(shares), 1, abs_tol=_ROUNDED)):
        raise ValueError("the scores of a line are no distribution")
    return shares


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the id {brief(value)} is no text")
    return value
