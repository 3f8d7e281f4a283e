"""Finding: an error or a warning about a data set. Rows that are odd for one cause are one finding, however many."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel

from msekit.data.readers.rows import RowError
from msekit.errors import MsekitError

Severity = Literal["error", "warning"]
_ROWS_NAMED = 5
_EXAMPLES_NAMED = 8


class Finding(BaseModel):
    """An error or a warning, with the rows that have it."""

    severity: Severity
    split: str | None
    what: str
    samples: int = 0
    """Samples that have it; 0 where the split or the set as a whole has it."""
    rows: list[str] = []
    """The first of them: row number and id; where a whole split has it, the file or key at fault."""
    fix: str | None = None
    cause: str = ""
    """`what`, without what only one row has."""
    low: float | None = None
    """Least of the numbers at fault."""
    high: float | None = None
    examples: list[str] = []
    """The first of other values at fault, each once."""

    def add(self, value: float | str | None, row: str | None) -> None:
        """Count a row."""
        if row is not None:
            self.samples += 1
            if len(self.rows) < _ROWS_NAMED:
                self.rows.append(row)
        if isinstance(value, str):
            if value not in self.examples and len(self.examples) <= _EXAMPLES_NAMED:
                self.examples.append(value)
        elif value is not None:
            self.low = value if self.low is None else min(self.low, value)
            self.high = value if self.high is None else max(self.high, value)

    def tell(self, what: str) -> None:
        """Take another row's words in: where they differ, the cause is told, with the values at fault."""
        if what == self.what:
            return
        values = self.values()
        self.what = f"{self.cause}: {values}" if values else f"{self.what.removesuffix(_OTHERS)}{_OTHERS}"

    def values(self) -> str:
        """The extremes of the numbers at fault, or the first of the other values."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"
        more = ", …" if len(self.examples) > _EXAMPLES_NAMED else ""
        return ", ".join(self.examples[:_EXAMPLES_NAMED]) + more


_OTHERS = " (others are like it)"


class Findings:
    """What a pass over a data set finds."""

    def __init__(self) -> None:
        self.all: dict[tuple[Severity, str | None, str], Finding] = {}

    def note(self, severity: Severity, split: str | None, what: str, row: str | None = None) -> None:
        """Count a finding; the same one of other rows is one finding."""
        self._find(severity, split, what, what, None).add(None, row)

    def refuse(self, split: str, error: MsekitError, row: str) -> None:
        """Count a row that cannot be used."""
        known = isinstance(error, RowError)
        cause, value = (error.cause, error.value) if isinstance(error, RowError) else (_blanked(error.what), None)
        finding = self._find("error", split, cause, error.what, error.fix)
        finding.add(value, row)
        if known or finding.samples > 1:
            finding.tell(error.what)

    def refuse_split(self, split: str | None, error: MsekitError, place: str) -> None:
        """Note what a whole split or set is refused for."""
        self._find("error", split, error.what, error.what, error.fix).rows[:] = [place] if place else []

    def sorted(self) -> list[Finding]:
        """Errors first, each kind in the order of its first row."""
        return sorted(self.all.values(), key=lambda finding: finding.severity == "warning")

    def _find(self, severity: Severity, split: str | None, cause: str, what: str, fix: str | None) -> Finding:
        new = Finding(severity=severity, split=split, what=what, cause=cause, fix=fix)
        return self.all.setdefault((severity, split, cause), new)


def by_cause(findings: list[Finding]) -> list[list[Finding]]:
    """The findings of all splits, those of one cause together."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.cause or finding.what), []).append(finding)
    return list(groups.values())


def line_of(group: list[Finding]) -> str:
    """The findings of one cause as one line: what, how many samples of which splits, the first rows, the remedy."""
    first, splits = group[0], [finding.split for finding in group if finding.split]
    merged = first.model_copy(deep=True)
    for other in group[1:]:
        for value in (other.low, other.high, *other.examples):
            merged.add(value, None)
        merged.tell(other.what)
    samples = sum(finding.samples for finding in group)
    count = f": {samples} samples" if samples > 1 else ""
    if len(group) > 1 and samples:
        count += f", {', '.join(f'{finding.split} {finding.samples}' for finding in group)}"
    split = "" if not splits else f"{splits[0]}: " if len(group) == 1 else "" if samples else f"{', '.join(splits)}: "
    row = f"{first.split} row " if len(group) > 1 else "row "
    more = ", …" if samples > len(first.rows) else ""
    rows = f" ({row if samples else ''}{', '.join(first.rows)}{more})" if first.rows else ""
    fix = f". {first.fix}" if first.fix else ""
    return f"{first.severity}: {split}{merged.what}{count}{rows}{fix}"


def _blanked(what: str) -> str:
    """A message without its numbers and quotations, but for the names of keys."""
    kept = r"'(?!text'|label'|audio'|vision'|id'|split')[^']*'|\"[^\"]*\"|\d[\d.,:]*"
    return re.sub(kept, "…", what)
