"""What is wrong or odd in a data set, found in one pass over its rows, without building anything.

An `error` makes the set unusable, a `warning` is for the user to judge. Both name the first rows they concern.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from msekit.data.cache.write_split import Progress, label_name
from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.readers.open_source import open_source
from msekit.data.readers.rows import Contents, Row, named
from msekit.errors import MsekitError

_ROWS_NAMED = 5
_ABSENT = "is absent"
_FLOAT16_MAX, _FLOAT32_MAX = 65504.0, float(np.finfo(np.float32).max)


class Finding(BaseModel):
    """One kind of oddity."""

    severity: Literal["error", "warning"]
    split: str | None
    what: str
    samples: int = 0
    """Samples concerned; 0 where it concerns the split or the set."""
    rows: list[str] = []
    """The first of them: row number and id; where it concerns a whole split, the file or key at fault."""


class ModalityCheck(BaseModel):
    """Audio or vision of one split; counts of samples unless said otherwise."""

    present: int = 0
    absent: int = 0
    width: int = 0
    frames: list[int] = []
    """Shortest, median and longest sequence."""
    all_zero: int = 0
    with_nonfinite: int = 0
    nan: int = 0
    """Values."""
    positive_infinite: int = 0
    negative_infinite: int = 0
    beyond_float16: int = 0
    """Finite values that float16 cannot hold."""
    beyond_float32: int = 0
    constant: list[int] = []
    """Features that have one value in all frames of the split."""


class SplitCheck(BaseModel):
    """One split."""

    samples: int = 0
    unusable: int = 0
    expected: int | None = None
    labels: dict[str, int] = {}
    empty_texts: int = 0
    longest_text: int = 0
    """Characters."""
    repeated_ids: int = 0
    audio: ModalityCheck = ModalityCheck()
    vision: ModalityCheck = ModalityCheck()


class Verification(BaseModel):
    """The outcome."""

    name: str
    task: str
    source: str | None
    verdict: Literal["usable", "usable with warnings", "unusable"]
    splits: dict[str, SplitCheck]
    findings: list[Finding]

    def check(self) -> None:
        """Refuse an unusable set.

        Raises:
            MsekitError: The first error and the number of further ones.
        """
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            first = errors[0]
            where = next(iter(first.rows), first.split)
            if first.samples:
                where = f"{first.split} row {where}"
            raise MsekitError(f"data set '{self.name}' is unusable: {first.what}{more}", where=where)


def verify(spec: DatasetSpec, progress: Progress | None = None) -> Verification:
    """Look at every row of a data set.

    Args:
        spec: The data set and where its files lie.
        progress: Called as rows are read.

    Returns:
        What was found, down to a split that cannot be read at all.

    Raises:
        MsekitError: The files are not there.
    """
    source = open_source(spec)
    inspection = Inspection(spec)
    for split in SPLITS:
        number = -1
        try:
            for number, read in enumerate(source.readers(split)):
                try:
                    inspection.see(split, number, read())
                except MsekitError as error:
                    inspection.refuse(split, number, error)
                if progress is not None:
                    progress(split, number + 1)
        except MsekitError as error:
            inspection.refuse(split, number + 1 or None, error)  # before the first row: the whole split is at fault
    return inspection.outcome()


class Inspection:
    """A pass over the rows of a set.

    Args:
        spec: What they must be.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        expected = dict(zip(SPLITS, spec.split_sizes or (None,) * 3, strict=True))
        labels = dict.fromkeys(spec.labels or (), 0)
        self.splits = {
            split: SplitCheck(expected=expected[split], labels=dict(labels), audio=ModalityCheck()) for split in SPLITS
        }
        self.findings: dict[tuple[str, str | None, str], Finding] = {}
        self.scans = {(split, key): ModalityScan() for split in SPLITS for key in MODALITIES}
        self.ids: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.contents = Contents()
        self.widths: dict[str, int] = {}

    def note(self, severity: Literal["error", "warning"], split: str | None, what: str, row: str | None = None) -> None:
        """Count a finding; the same one of other rows is one finding."""
        finding = self.findings.setdefault((severity, split, what), Finding(severity=severity, split=split, what=what))
        if row is not None:
            finding.samples += 1
            if len(finding.rows) < _ROWS_NAMED:
                finding.rows.append(row)

    def refuse(self, split: str, number: int | None, error: MsekitError) -> None:
        """A row that cannot be read, or, without a number, a split."""
        self.splits[split].unusable += 1
        place = str(error.where).removeprefix(str(self.spec.source)).lstrip("/, ") or Path(str(error.where)).name
        if number is None:
            finding = Finding(severity="error", split=split, what=error.what, rows=[place])
            self.findings.setdefault(("error", split, error.what), finding)
            return
        place = place.removeprefix(f"{split} row {number}, ")
        self.note("error", split, error.what, f"{number} ({place})" if error.where is not None else str(number))

    def see(self, split: str, number: int, row: Row) -> None:
        """Take in a row.

        Raises:
            MsekitError: Its features have another width than those before.
        """
        check, name = self.splits[split], named(number, row)
        for key in MODALITIES:
            frames_LD = getattr(row, key)
            if frames_LD is not None:
                width = self.widths.setdefault(key, frames_LD.shape[1])
                if frames_LD.shape[1] != width:
                    raise MsekitError(f"'{key}' has {frames_LD.shape[1]} features per frame, earlier rows have {width}")
        check.samples += 1
        label = label_name(self.spec, row.label)
        check.labels[label] = check.labels.get(label, 0) + 1
        check.longest_text = max(check.longest_text, len(row.text))
        if not row.text.strip():
            check.empty_texts += 1
            self.note("warning", split, "the text is empty", name)
        self.ids[split][row.id] += 1
        if self.ids[split][row.id] > 1:
            check.repeated_ids += 1
            self.note("warning", split, "an id is there twice", name)
        first = self.contents.seen_before(split, number, row)
        if first is not None:
            other = "earlier in the split" if first[0] == split else f"in {first[0]}, too"
            self.note("warning", split, f"the same sample, by content, is {other}", f"{name} = {first[1]}")
        for key in MODALITIES:
            for what in self.scans[split, key].add(getattr(row, key)):
                self.note("warning", split, f"{key} {what}", name)

    def outcome(self) -> Verification:
        """Everything that was found."""
        for split, check in self.splits.items():
            if not check.samples:
                self.note("error", split, "the split has no usable sample")
            elif check.expected is not None and check.samples + check.unusable != check.expected:
                found = check.samples + check.unusable
                self.note("warning", split, f"{found} samples; '{self.spec.name}' as published has {check.expected}")
            missing = [label for label, count in check.labels.items() if not count]
            if missing and check.samples:
                self.note("warning", split, f"no sample is labelled {', '.join(missing)}")
            if not self.spec.labels:
                check.labels = dict(sorted(check.labels.items(), key=lambda item: float(item[0])))
            for key in MODALITIES:
                found_here = self.scans[split, key].outcome()
                setattr(check, key, found_here)
                if found_here.constant and split == "train":
                    numbers = ", ".join(map(str, found_here.constant[:10]))
                    more = ", …" if len(found_here.constant) > 10 else ""
                    what = f"{key}: {len(found_here.constant)} of {found_here.width} features are constant"
                    self.note("warning", split, f"{what} ({numbers}{more})")
        for key in MODALITIES:
            if key not in self.widths and any(check.samples for check in self.splits.values()):
                self._missing(key)
        findings = sorted(self.findings.values(), key=lambda finding: finding.severity == "warning")
        worst = findings[0].severity if findings else None
        verdicts: dict[Any, Any] = {"error": "unusable", "warning": "usable with warnings", None: "usable"}
        return Verification(
            name=self.spec.name,
            task=self.spec.task,
            source=str(self.spec.source) if self.spec.source else None,
            verdict=verdicts[worst],
            splits=self.splits,
            findings=findings,
        )

    def _missing(self, key: str) -> None:
        """Say once that the whole set lacks a modality."""
        for split in SPLITS:
            self.findings.pop(("warning", split, f"{key} {_ABSENT}"), None)
        expected = getattr(self.spec, f"{key}_width")
        if expected:
            self.note("error", None, f"no sample has {key}; '{self.spec.name}' has a width of {expected}")
        elif expected is None:
            self.note("warning", None, f"no sample has {key}")


class ModalityScan:
    """Audio or vision of one split, as its rows pass."""

    def __init__(self) -> None:
        self.check = ModalityCheck()
        self.lengths: list[int] = []
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None

    def add(self, frames_LD: np.ndarray | None) -> list[str]:
        """Take in a sample's frames; returns what is odd about them."""
        check = self.check
        if frames_LD is None:
            check.absent += 1
            return [_ABSENT]
        check.present += 1
        check.width = frames_LD.shape[1]
        self.lengths.append(len(frames_LD))
        odd = []
        if not np.isfinite(frames_LD).all():
            check.with_nonfinite += 1
            check.nan += int(np.isnan(frames_LD).sum())
            check.positive_infinite += int(np.isposinf(frames_LD).sum())
            check.negative_infinite += int(np.isneginf(frames_LD).sum())
            odd.append("holds NaN or infinite values")
            frames_LD = np.where(np.isfinite(frames_LD), frames_LD, np.nan)
        low_D, high_D = np.fmin.reduce(frames_LD, axis=0), np.fmax.reduce(frames_LD, axis=0)
        largest = float(np.fmax(np.abs(low_D.astype(np.float64)), np.abs(high_D.astype(np.float64))).max())
        if largest == 0:
            check.all_zero += 1
            odd.append("is zero throughout")
        if largest > _FLOAT16_MAX:
            check.beyond_float16 += int((np.abs(frames_LD) > _FLOAT16_MAX).sum())
        if largest > _FLOAT32_MAX:
            check.beyond_float32 += int((np.abs(frames_LD) > _FLOAT32_MAX).sum())
            odd.append("holds values beyond float32")
        self.low = low_D if self.low is None else np.fmin(self.low, low_D)
        self.high = high_D if self.high is None else np.fmax(self.high, high_D)
        return odd

    def outcome(self) -> ModalityCheck:
        """The counts."""
        if self.low is not None and self.high is not None:
            self.check.constant = np.flatnonzero(~(self.low < self.high)).tolist()
            ordered = sorted(self.lengths)
            self.check.frames = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
        return self.check
