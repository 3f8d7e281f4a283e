"""What the keys of a data set's description must agree in, beside each one's type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msekit.data.targets import check_range, check_targets, columns_of
from msekit.errors import MsekitError, nearest
from msekit.words import first_fault

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec

WORDED = ("en", "zh")
"""Languages that msekit has prompts in."""
UNSPACED = ("zh", "ja", "th", "lo", "km", "my")
"""Languages written without blanks between words: classical models read their characters."""
OF_TABLES = ("columns", "validation", "folds", "fold")
"""Keys of tables of one's own."""
FEWEST_FOLDS = 3
"""One to test, one to validate, one to train."""


class Folds(BaseModel):
    """How a table is parted for cross-validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["speaker", "session", "given"]
    """What stays together: rows of one speaker, of one session (column `session`), or as the column `fold` says."""
    k: int | None = Field(None, ge=FEWEST_FOLDS)
    """Number of folds; None for one of each speaker or session, or as many as are given."""


def check_description(spec: DatasetSpec, columns: tuple[str, ...]) -> None:
    """All that the keys must agree in; `columns`: what a table of samples may hold.

    Raises:
        ValueError: They do not.
    """
    check_targets(spec, columns)
    check_answers(spec)
    check_table(spec, (*columns, *columns_of(spec)))
    if not spec.targets:
        check_key(spec)


def check_answers(spec: DatasetSpec) -> None:
    """Task, labels, range, language and metrics go together.

    Raises:
        ValueError: They do not.
    """
    if spec.task == "erc" and (spec.labels is None or spec.range is not None):
        raise ValueError("an erc data set needs `labels` (a list, in the order of their numbers) and no `range`")
    if spec.task == "msa" and (spec.range is None or spec.labels is not None):
        raise ValueError("an msa data set needs `range: [low, high]` and no `labels`")
    if spec.labels is not None and (len(spec.labels) < 2 or len(set(spec.labels)) < len(spec.labels)):
        raise ValueError("`labels` must be two or more different names")
    check_range(spec.range)
    if spec.language not in WORDED and spec.prompt is None and not spec.targets:
        raise ValueError(f"`language: {spec.language}` needs a `prompt`: there are wordings for en and zh alone")
    if isinstance(spec.metrics, str) and spec.task == "erc":
        raise ValueError("a family of `metrics` is chosen for intensities; an erc data set has none to choose")


def with_key(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """A description with `key_metric`: the one it says, or else what is usual for the task, or the first it chooses."""
    if said.get("key_metric"):
        return said
    usual, names = "mae" if said.get("task") == "msa" else "wf1", said.get("metrics")
    chosen = isinstance(names, (list, tuple)) and names and usual not in names
    return dict(said) | {"key_metric": str(names[0]) if chosen and names else usual}


def check_key(spec: DatasetSpec) -> None:
    """The key metric is one number that is computed.

    Raises:
        ValueError: It is not.
    """
    if isinstance(spec.metrics, tuple) and spec.key_metric not in spec.metrics:
        raise ValueError(f"`key_metric` is '{spec.key_metric}', which is none of `metrics`")
    if spec.key_metric.startswith("per_class_"):
        raise ValueError(f"`key_metric` is one number, and '{spec.key_metric}' is one for each class")


def check_table(spec: DatasetSpec, columns: tuple[str, ...]) -> None:
    """What is said of a table can be read from one that may hold these columns.

    Raises:
        ValueError: It cannot.
    """
    strangers = [name for name in spec.aliases.values() if name not in (spec.labels or ())]
    if strangers:
        raise ValueError(f"`aliases` lead to class names, and '{strangers[0]}' is none of `labels`")
    for key in ("encoding", "delimiter"):
        if getattr(spec, key) is not None and spec.layout != "csv":
            raise ValueError(f"`{key}` is of CSV files, and the layout here is '{spec.layout}'")
    for key in OF_TABLES:
        if getattr(spec, key) and spec.layout not in ("csv", "folder"):
            raise ValueError(f"`{key}` is of tables of one's own, and the layout here is '{spec.layout}'")
    if spec.fold is not None and (spec.folds is None or spec.fold > (spec.folds.k or spec.fold)):
        raise ValueError(f"`fold` is {spec.fold}, and there is no such one of `folds`")
    if spec.folds is not None and spec.validation is not None:
        raise ValueError("`validation` goes with no `folds`: the next fold is the validation split")
    for key in spec.columns:
        if key not in columns:
            raise ValueError(f"`columns` says '{key}'. {nearest(key, columns)}")
    if len(set(spec.columns.values())) < len(spec.columns):
        raise ValueError("`columns` takes one column for two things")
    if spec.delimiter is not None and (len(spec.delimiter) != 1 or spec.delimiter in '"\r\n'):
        raise ValueError(f"`delimiter` is one character, as ';', and not {spec.delimiter!r}")
    if spec.encoding is not None:
        try:
            "".encode(spec.encoding)
        except (LookupError, ValueError):
            raise ValueError(f"`encoding` is one that Python knows, as gb18030, not '{spec.encoding}'") from None


def checked(kind: type[DatasetSpec], raw: Mapping[str, Any], where: object) -> DatasetSpec:
    """A description's keys and values → the data set.

    Raises:
        MsekitError: A key is unknown, missing or wrong.
    """
    try:
        return kind(**raw)
    except ValidationError as error:
        first, key, what = first_fault(error)
        if first["type"] == "string_type" and isinstance(first["input"], (bool, int, float)):
            from msekit.yaml_file import unquoted

            value, example = unquoted(first["input"])
            what, fix = f"{key} is {value} as YAML reads it, not a text", f"Write it in quotes: {example}"
            raise MsekitError(what, where=where, fix=fix) from error
        raise MsekitError(what, where=where) from error
