"""`answers_of`: what a table says of several targets → a row's numbers, NaN where it says nothing.

A target's value stands in a column of its name, or in the mapping `targets`. Of a target with labels it is a list of
the names that hold, a text of them with `;` between (`none` for none), or a mapping from names to yes or no; a column
`target.label` says one label's. Yes is true, `yes`, `true` or a number above 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.labels import label_of
from msekit.data.readers.rows import RowError, number_of
from msekit.data.readers.unlabelled import NO_LABEL, is_absent
from msekit.data.targets import SEVERAL, Target, of_target
from msekit.errors import MsekitError, nearest

_NOTHING = "none"
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


def answers_of(spec: DatasetSpec, fields: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """A row's numbers, in the order of `questions_of`.

    Args:
        spec: A set of several targets.
        fields: What the row holds.
        where: The row.

    Raises:
        MsekitError: A value that is none of its target's, or names that the set has not.
    """
    given = fields.get(SEVERAL)
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise MsekitError(f"'{SEVERAL}' is a {type(given).__name__}, not an object of names and values", where=where)
    if strangers := [str(name) for name in given if name not in spec.targets]:
        raise MsekitError(f"no target '{strangers[0]:.60}'", where=where, fix=nearest(strangers[0][:60], spec.targets))
    numbers: list[float] = []
    for name, target in spec.targets.items():
        both = [value for value in (fields.get(name), given.get(name)) if not _is_nothing(value)]
        if len(both) > 1:
            raise MsekitError(f"'{name}' is there twice: as a column and in '{SEVERAL}'", where=where)
        value = both[0] if both else None
        if target.labels is not None:
            numbers += _labels(name, target, value, fields, where)
        else:
            asking = of_target(spec, name).model_copy(update={"name": name})  # whose labels a refusal speaks of
            numbers.append(NO_LABEL if value is None else label_of(asking, value, where, name))
    return tuple(numbers)


def _is_nothing(value: object) -> bool:
    return not isinstance(value, (list, tuple, Mapping)) and is_absent(value)


def _labels(name: str, target: Target, value: object, fields: Mapping[str, Any], where: str) -> list[float]:
    """0 or 1 for each label of a target, NaN where nothing is said of it."""
    labels = target.labels or ()
    apart = {label: cell for label in labels if not _is_nothing(cell := fields.get(f"{name}.{label}"))}
    said: Mapping[str, object] = apart
    if value is not None and apart:
        raise MsekitError(f"'{name}' is there twice: as a whole and as '{name}.{next(iter(apart))}'", where=where)
    if isinstance(value, Mapping):
        said = {_label(name, target, key, where): answer for key, answer in value.items()}
    elif value is not None:
        holding = {_label(name, target, one, where) for one in _names(name, value, where)}
        said = {label: label in holding for label in labels}
    cells = {label: said.get(label) for label in labels}
    return [NO_LABEL if _is_nothing(cell) else _yes(cell, f"{name}.{label}", where) for label, cell in cells.items()]


def _names(name: str, value: object, where: str) -> Sequence[object]:
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(";")]
        return [] if parts == [_NOTHING] else [part for part in parts if part]
    if isinstance(value, (list, tuple, np.ndarray)):
        return list(value)
    fix = f"Give a list of its labels, or `label;label`, or `{_NOTHING}`, or columns `{name}.LABEL`"
    raise MsekitError(f"'{name}' is a {type(value).__name__}, not a list of labels", where=where, fix=fix)


def _label(name: str, target: Target, value: object, where: str) -> str:
    labels = target.labels or ()
    written = target.aliases.get(str(value), str(value))
    if written not in labels:
        cause, shown = f"unknown labels of '{name}'", f"{written:.60}"
        fix = nearest(shown, labels)
        raise RowError(f"'{name}' has no label '{shown}'", where=where, fix=fix, cause=cause, value=shown)
    return written


def _yes(value: object, key: str, where: str) -> float:
    if isinstance(value, (bool, np.bool_)):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    number = number_of(value)
    if number is None or not math.isfinite(number) or number < 0:
        cause = f"'{key}' is neither yes nor no"
        fix = "Yes is true, yes, or a number above 0; no is false, no, or 0"
        raise RowError(f"{cause}: {value!r:.60}", where=where, fix=fix, cause=cause, value=f"{value!r:.60}")
    return float(number > 0)
