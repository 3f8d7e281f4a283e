"""Rows without a label: those of test are predicted and count in no metric, those of train and valid are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from msekit.data.readers.own_tables import alike, listed
from msekit.data.readers.rows import RowError

NO_LABEL = math.nan
"""The label of a row that has none."""


def is_absent(label: object) -> bool:
    """Whether a table says nothing in a label's place: nothing, an empty cell, or NaN, which pandas writes for that; of
    several targets, whether it says nothing of any."""
    if isinstance(label, tuple):
        return all(map(is_absent, label))
    return label is None or label == "" or (isinstance(label, (float, np.floating)) and math.isnan(label))


def refused_label(split: str, name: str, held: Sequence[str], counts: tuple[int, int], where: object) -> RowError:
    """The refusal of a row of train or valid that has no label.

    Args:
        split: Of the row.
        name: What the table calls the label.
        held: The columns of the table.
        counts: How many rows of the split have no label, and how many rows it has.
        where: The row.
    """
    without, total = counts
    what = f"'{name}' is missing"
    fix = f"{without} of {split}'s {total} rows have no label: label them, leave them out, or, where they are to be"
    fix += f" predicted, make them rows of test. The row holds: {listed(held)}"
    return RowError(what, where=where, fix=fix, cause=what)


def refuse_namesake(name: str, held: Sequence[str], where: object) -> None:
    """Refuse a row of test that lacks the label's column and has one that seems to be it.

    Raises:
        RowError: It does.
    """
    if name not in held and (other := alike("label", held)):
        what = f"'{name}' is missing, and '{other}' looks like it"
        fix = f"Say so with --columns label={other}, or, where the row has no label, give it an empty '{name}'"
        raise RowError(what, where=where, fix=fix, cause=what)


def without_label(labels_N: np.ndarray) -> np.ndarray:
    """Which samples have no label: (N,) or, of several targets, (N, questions) → bool (N,)."""
    absent = np.isnan(np.asarray(labels_N, dtype=np.float64))
    return absent if absent.ndim == 1 else np.all(absent, axis=1)


def remark(split: str, without: int, total: int) -> str:
    """A sentence about the rows of test that have no label."""
    rows = f"none of {split}'s {total} rows has" if without == total else f"{without} of {split}'s {total} rows have"
    metrics = "there are no metrics" if without == total else "the metrics are of the others"
    return f"{rows} {'a' if without == total else 'no'} label: all are predicted, and {metrics}"
