"""Folds of a table of one's own: which rows are test, valid and train, so that no speaker or session is in two.

Fold N is the test split, the next one (after the last the first) the validation split, the others training. Which fold
a speaker is in depends on the names and numbers of rows alone, not on the order of the rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msekit.data.catalogue import DatasetSpec
from msekit.data.description_checks import FEWEST_FOLDS, Folds
from msekit.data.readers.own_tables import Sample, read_table
from msekit.errors import MsekitError

_COLUMN = {"speaker": "speaker", "session": "session", "given": "fold"}


def folds_of(samples: Iterable[Sample], folds: Folds, path: Path) -> dict[str, int]:
    """The fold of every group, from 1.

    Args:
        samples: Every row of the table.
        folds: What keeps rows together, and how many folds there are.
        path: The table, for messages.

    Returns:
        Name of a group (`group_of_row`) → number of its fold.

    Raises:
        MsekitError: A row without a group, too few groups, or another number of given folds than is said.
    """
    counts = Counter(group_of_row(sample, folds) for sample in samples)
    kind = _COLUMN[folds.by]
    named = sorted(counts, key=natural)
    number = folds.k or len(named)
    if folds.by == "given" and number != len(named):
        raise MsekitError(f"the rows have {len(named)} folds, and `folds` says {number}", where=path, fix="Leave k out")
    if len(named) < max(number, FEWEST_FOLDS):
        fix = f"There are {len(named)}: {', '.join(named[:12])}"
        raise MsekitError(f"{max(number, FEWEST_FOLDS)} folds need as many different values of '{kind}'",
                          where=path, fix=fix)  # fmt: skip
    if number == len(named):
        return {name: place for place, name in enumerate(named, start=1)}
    # the largest first, forth and back over the folds: sizes stay alike, and so do kinds that alternate in the names
    order = sorted(named, key=lambda name: -counts[name])
    return {name: 1 + snake(place, number) for place, name in enumerate(order)}


def snake(place: int, number: int) -> int:
    """0, 1, 2, 2, 1, 0, 0, … of so many."""
    there, back = place % (2 * number), 2 * number - 1 - place % (2 * number)
    return min(there, back)


def group_of_row(sample: Sample, folds: Folds) -> str:
    """What a row is kept together with.

    Raises:
        MsekitError: The row does not say it.
    """
    column = _COLUMN[folds.by]
    value = sample.fields.get(column)
    if value is None or str(value) == "":
        fix = f"Folds by {folds.by} need it in every row; `columns: {{{column}: NAME}}` says where it stands"
        raise MsekitError(f"'{column}' is missing", where=sample.where, fix=fix)
    return str(value)


def split_of_fold(number: int, test: int, folds: int) -> str:
    """The split that a fold is in where another one (or itself) is the test split."""
    return {test: "test", test % folds + 1: "valid"}.get(number, "train")


def natural(name: str) -> list[Any]:
    """A key by which `actor 10` comes after `actor 9`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


@dataclass(frozen=True)
class Folding:
    """A table's folds, one of which is tested."""

    folds: Folds
    of_group: dict[str, int]
    """Name of a group → number of its fold."""
    test: int

    @classmethod
    def of(cls, spec: DatasetSpec, tables: list[Path]) -> Folding:
        """The folds of a data set; the first one is tested where none is chosen.

        Raises:
            MsekitError: It has several tables, or no such fold; and see `folds_of`.
        """
        assert spec.folds is not None
        if len(tables) > 1:
            raise MsekitError("folds are of one table with all samples", where=tables[0].parent)
        folding = cls(spec.folds, folds_of(read_table(tables[0], spec), spec.folds, tables[0]), spec.fold or 1)
        if folding.test > folding.count:
            raise MsekitError(f"there is no fold {folding.test}: there are {folding.count}", where=tables[0])
        return folding

    @property
    def count(self) -> int:
        """How many there are."""
        return max(self.of_group.values())

    @property
    def remark(self) -> str:
        """What a user is told of it."""
        valid = self.test % self.count + 1
        return f"of {self.count} folds by {self.folds.by}, fold {self.test} is test and fold {valid} valid"

    def split_of(self, sample: Sample) -> str:
        """The split that a row's fold puts it in."""
        return split_of_fold(self.of_group[group_of_row(sample, self.folds)], self.test, self.count)
