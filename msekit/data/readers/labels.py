"""`label_of`: a label as a file spells it → the class number or the intensity.

A class is given by its name, or, where no name is a number, by its place in the list of names. One reading holds for
all files, whether they keep numbers (JSON lines, Parquet, pickles) or text (CSV).
"""

from __future__ import annotations

import json
import math
import reprlib

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.rows import RowError, number_of, text_of
from msekit.errors import MsekitError

_RANGE_TOLERANCE = 1e-6


def label_of(spec: DatasetSpec, value: object, where: str, key: str) -> float:
    """The class number (erc) or the intensity (msa).

    Raises:
        MsekitError: The label is not one of the data set's, or could be two of them.
    """
    where = f"{where}, key '{key}'"
    return _class_of(spec, value, where, key) if spec.range is None else _intensity(spec, spec.range, value, where)


def numeric_names(labels: tuple[str, ...]) -> list[str]:
    """The class names that are numbers."""
    return [label for label in labels if (number := number_of(label)) is not None and math.isfinite(number)]


def _intensity(spec: DatasetSpec, span: tuple[float, float], value: object, where: str) -> float:
    number, (low, high) = number_of(value), span
    if number is None or not math.isfinite(number):
        shown = reprlib.repr(value) if number is None else str(number)
        raise RowError(
            f"label {shown} is not a finite number", where=where, cause="labels are no finite numbers", value=shown
        )
    if not low - _RANGE_TOLERANCE <= number <= high + _RANGE_TOLERANCE:
        outside = f"outside the range of '{spec.name}', {low:g} to {high:g}"
        raise RowError(
            f"label {number:g} is {outside}",
            where=where,
            fix="Check that this is the right file, or give the data set its own `range`",
            cause=f"labels are {outside}",
            value=number,
        )
    return min(max(number, low), high)


def _class_of(spec: DatasetSpec, value: object, where: str, key: str) -> float:
    labels, number = spec.labels or (), number_of(value)
    written = _written(value, number, where, key)
    if written in spec.aliases:
        return float(labels.index(spec.aliases[written]))
    numbers = numeric_names(labels)
    readings = [place for place, label in enumerate(labels) if label == written]
    if not readings and isinstance(value, (bool, np.bool_)):
        readings = [place for place, label in enumerate(labels) if label.lower() == written]
    if not readings and number is not None:
        readings = [place for place, label in enumerate(labels) if label in numbers and number_of(label) == number]
    if number is not None and len(numbers) < len(labels) and number in range(len(labels)):
        readings = list(dict.fromkeys([*readings, int(number)]))
    if len(readings) == 1:
        return float(readings[0])
    if readings:
        meant = " or ".join(f"'{labels[place]}'" for place in readings)
        raise RowError(
            f"label {written} can be read as {meant}",
            where=where,
            fix=f"Say which in the description: aliases: {_pair(written, labels[readings[0]])}",
            cause="labels can be read as a name and as a place in the list of names",
            value=written,
        )
    raise _unknown(spec, labels, value, written, where)


def _written(value: object, number: float | None, where: str, key: str) -> str | None:
    """A label as a text, as an alias or a name would spell it."""
    if isinstance(value, (str, bytes)):
        return text_of(value, where, key)
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    return None if number is None else f"{number:.15g}"


def _unknown(spec: DatasetSpec, labels: tuple[str, ...], value: object, written: str | None, where: str) -> MsekitError:
    near = [label for label in labels if written is not None and _plain(label) == _plain(written)]
    numbers = numeric_names(labels)
    known = ", ".join(labels if numbers else (f"{place} {label}" for place, label in enumerate(labels)))
    advice = f"Known labels of '{spec.name}': {known}"
    if near:
        advice += f". Did you mean '{near[0]}'? Then say so in the description: aliases: {_pair(written, near[0])}"
    elif len(numbers) == len(labels) and written is not None:
        advice += " (these are names: the numbers of a file are compared with them)"
    shown = reprlib.repr(value)
    return RowError(f"unknown label {shown}", where=where, fix=advice, cause="unknown labels", value=shown)


def _pair(written: str | None, label: str) -> str:
    """A mapping as YAML takes it, whatever the two texts hold."""
    return json.dumps({written: label}, ensure_ascii=False)


def _plain(label: str) -> str:
    return " ".join(label.split()).casefold()
