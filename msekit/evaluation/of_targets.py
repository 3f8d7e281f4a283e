"""The metrics of several targets together: each target's own as `target:metric`, and `mean` over their key metrics.

`mean` is over shares of 1 of which more is better: a metric that is a fraction or a correlation as it is; of an error
in a range's own unit, 1 - error / (high - low), squared errors by the square of that. A target none of whose samples
is labelled is left out, a key metric that is not defined counts as 0.

N: samples. Q: questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.targets import MEAN, UNANSWERED, Target, questions_of
from msekit.errors import MsekitError

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec

Array = NDArray[Any]


def together(
    spec: DatasetSpec,
    functions: Mapping[str, Callable[[Array, Array], dict[str, Any]]],
    errors: Collection[str],
    truth: Array,
    prediction: Array,
) -> dict[str, Any]:
    """Every target's metrics, and their mean.

    Args:
        spec: The data set.
        functions: Target → its metric function.
        errors: Metrics of which less is better.
        truth: [N, Q], NaN where a sample does not answer a question.
        prediction: [N, Q].
    """
    found: dict[str, Any] = {}
    shares, first = [], 0
    for name, target in spec.targets.items():
        columns = slice(first, first + len(target.labels or (name,)))
        first = columns.stop
        true, predicted = truth[:, columns], prediction[:, columns]
        if target.labels is None:
            true, predicted = true[:, 0], predicted[:, 0]
        own = functions[name](true, predicted)
        found |= {f"{name}:{metric}": value for metric, value in own.items()}
        if not np.isnan(true).all():
            value = own[target.key_metric]
            shares.append(_as_share(target, value) if target.key_metric in errors else value)
    return {MEAN: mean_of_shares(shares)} | found


def mean_of_shares(shares: Sequence[float | None]) -> float | None:
    """The mean of several targets' key metrics; None of none."""
    return float(np.mean([share or 0.0 for share in shares])) if shares else None


def refuse_unanswered(spec: DatasetSpec, train: Array, valid: Array) -> None:
    """Refuse targets that cannot be trained, or by which no epoch can be chosen.

    Args:
        spec: The data set.
        train: Its training samples' numbers, [N, Q].
        valid: Those of valid.

    Raises:
        MsekitError: No training sample answers a question, or no sample of valid that of the key metric.
    """
    whose = spec.key_metric.partition(":")[0]
    asked = questions_of(spec) if spec.targets else []
    if gone := [one.name for one, numbers in zip(asked, train.T, strict=False) if np.isnan(numbers).all()]:
        raise MsekitError(f"no training sample answers '{gone[0]}'", where=spec.name, fix=UNANSWERED)
    judged = [numbers for one, numbers in zip(asked, valid.T, strict=False) if one.target == whose]
    if judged and np.isnan(judged).all():
        what = f"no sample of valid answers '{whose}', by which `key_metric: {spec.key_metric}` is to choose an epoch"
        raise MsekitError(what, where=spec.name, fix="Label some, or choose by another target, or by mean.")


def _as_share(target: Target, error: float | None) -> float | None:
    """A range's error as a share of 1, of which more is better."""
    if error is None or target.range is None:
        return error
    low, high = target.range
    return 1 - error / (high - low) ** (2 if target.key_metric == "mse" else 1)
