"""`metrics.jsonl` and `robustness.json`: what training was like epoch by epoch, and what is left of a test where
modalities are withheld. One schema and one reader for each; no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from msekit.errors import MsekitError
from msekit.json_file import read_json, read_json_lines
from msekit.runs.files import METRICS, ROBUSTNESS
from msekit.runs.report import Metrics


class Epoch(BaseModel):
    """A line of `metrics.jsonl`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    epoch: int = Field(ge=1)
    train_loss: float
    valid_loss: float
    valid: Metrics
    """Metrics of the validation split."""
    best: bool
    """Whether it was the best so far."""


class Robustness(BaseModel):
    """`robustness.json`, as far as reports read it."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    metrics: dict[str, Metrics]
    """What was done to the test split → its metrics."""


_EPOCHS = TypeAdapter(list[Epoch])


def read_history(folder: Path) -> list[Epoch]:
    """The epochs of a run; none where there is no such file.

    Raises:
        MsekitError: It is damaged.
    """
    where = folder / METRICS
    if not where.is_file():
        return []
    try:
        epochs = _EPOCHS.validate_python(read_json_lines(where))
    except ValidationError as error:
        raise _damaged(error, where) from error
    if epochs and not any(epoch.best for epoch in epochs):
        raise MsekitError("the file is damaged: no epoch is the best one", where=where)
    return epochs


def read_robustness(folder: Path) -> dict[str, Metrics]:
    """What was done to the test split → its metrics; empty where it was not tried.

    Raises:
        MsekitError: The file is damaged.
    """
    where = folder / ROBUSTNESS
    if not where.is_file():
        return {}
    try:
        return Robustness.model_validate(read_json(where)).metrics
    except ValidationError as error:
        raise _damaged(error, where) from error


def _damaged(error: ValidationError, where: Path) -> MsekitError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return MsekitError(f"the file is damaged: {key}: {first['msg']}", where=where)
