"""`verify`: what is wrong or odd in a data set, by one pass over its rows, without building anything.

An `error` makes the set unusable, a `warning` is for the user to judge. Both name the first rows they concern.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from msekit.data.cache.digests import MEMO
from msekit.data.cache.known_files import remarks_on_files
from msekit.data.cache.label_counts import countable, in_order, label_names, unanswered
from msekit.data.cache.write_split import RowCallback
from msekit.data.catalogue import MODALITIES, SPLITS, DatasetSpec
from msekit.data.findings import Finding, Findings, by_cause
from msekit.data.modality_scan import ABSENT, ModalityCheck, ModalityScan
from msekit.data.readers.open_source import open_source
from msekit.data.readers.rows import Contents, Row, RowError, Unread, named
from msekit.data.readers.set_apart import advice_on_empty
from msekit.data.readers.unlabelled import is_absent, remark
from msekit.errors import MsekitError
from msekit.paths import cache_root

_NO_FRAMES = "has an array of no frames, and counts as absent"
_MOST_REFUSED = 100_000
"""Unusable rows of a split that are looked at: several seconds' worth."""


class SplitCheck(BaseModel):
    """Counts over one split's rows."""

    samples: int = 0
    unusable: int = 0
    expected: int | None = None
    labels: dict[str, int] = {}
    without_label: int = 0
    unanswered: dict[str, int] = {}
    """Of several targets: question → samples that do not answer it."""
    empty_texts: int = 0
    longest_text: int = 0
    """Characters."""
    repeated_ids: int = 0
    audio: ModalityCheck = ModalityCheck()
    vision: ModalityCheck = ModalityCheck()


class Verification(BaseModel):
    """A data set's verdict, with the counts and findings behind it."""

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
        errors = by_cause([finding for finding in self.findings if finding.severity == "error"])
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            first = errors[0][0]
            where = next(iter(first.rows), first.split)
            if first.samples:
                where = f"{first.split} row {where}"
            raise MsekitError(f"data set '{self.name}' is unusable: {first.what}{more}", where=where, fix=first.fix)


def verify(spec: DatasetSpec, progress: RowCallback | None = None) -> Verification:
    """Look at every row of a data set.

    Args:
        spec: The data set and where its files lie.
        progress: Called as rows are read.

    Returns:
        Counts and findings; a split that cannot be read at all is one finding.

    Raises:
        MsekitError: The files are not there.
    """
    source = open_source(spec)
    inspection = Inspection(spec)
    whole = True
    for split in SPLITS:
        number = -1
        try:
            for number, read in enumerate(source.readers(split)):
                try:
                    inspection.see(split, number, read())
                except MsekitError as error:
                    inspection.refuse(split, number, error)
                    if inspection.splits[split].unusable > _MOST_REFUSED:
                        raise MsekitError(
                            f"more than {_MOST_REFUSED:,} rows are unusable; it was read no further"
                        ) from error
                if progress is not None:
                    progress(split, number + 1)
        except MsekitError as error:
            whole = False
            inspection.refuse(split, number + 1 or None, error)  # before the first row: the whole split is at fault
    if whole:
        inspection.leave(source.unread())
        for what in remarks_on_files(spec, source.source_files, cache_root() / "datasets" / MEMO):
            inspection.findings.note("warning", None, what)
    return inspection.outcome()


class Inspection:
    """A pass over the rows of a set.

    Args:
        spec: What the rows must fit.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        expected = dict(zip(SPLITS, spec.split_sizes or (None,) * 3, strict=True))
        labels = dict.fromkeys(countable(spec), 0)
        self.splits = {
            split: SplitCheck(expected=expected[split], labels=dict(labels), audio=ModalityCheck()) for split in SPLITS
        }
        self.findings = Findings()
        self.scans = {(split, key): ModalityScan() for split in SPLITS for key in MODALITIES}
        self.ids: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.contents = Contents()
        self.widths: dict[str, int] = {}
        self.lengths: dict[str, set[int]] = {key: set() for key in MODALITIES}
        """Frames of the sequences, as many as tell whether they differ."""
        self.alike: dict[str, Counter[bool]] = {key: Counter() for key in MODALITIES}
        """Rows by whether they have as many features per frame as the first."""
        self.unread: Unread = Unread()

    def refuse(self, split: str, number: int | None, error: MsekitError) -> None:
        """A row that cannot be read, or, without a number, a split."""
        self.splits[split].unusable += 1
        place = str(error.where).removeprefix(str(self.spec.source)).lstrip("/, ") or Path(str(error.where)).name
        if number is None:
            self.findings.refuse_split(split, error, place)
            return
        place = place.removeprefix(f"{split} row {number}, ")
        self.findings.refuse(split, error, f"{number} ({place})" if error.where is not None else str(number))

    def leave(self, unread: Unread) -> None:
        """Note what no sample uses."""
        self.unread = unread
        for what in unread.warnings:
            self.findings.note("warning", None, what)
        if unread.error is not None:
            self.findings.refuse_split(None, unread.error, "")

    def see(self, split: str, number: int, row: Row) -> None:
        """Count a row and note what is odd about it.

        Raises:
            MsekitError: Its features have another width than those before.
        """
        check, name = self.splits[split], named(number, row)
        for key in MODALITIES:
            frames_LD = getattr(row, key)
            if frames_LD is not None:
                self._check_width(key, len(frames_LD), frames_LD.shape[1], row.id)
        check.samples += 1
        check.without_label += is_absent(row.label)
        for question in unanswered(self.spec, row.label):
            check.unanswered[question] = check.unanswered.get(question, 0) + 1
        for label in label_names(self.spec, row.label):
            check.labels[label] = check.labels.get(label, 0) + 1
        check.longest_text = max(check.longest_text, len(row.text))
        if not row.text.strip():
            check.empty_texts += 1
            self.findings.note("warning", split, "the text is empty", name)
        self.ids[split][row.id] += 1
        if self.ids[split][row.id] > 1:
            check.repeated_ids += 1
            self.findings.note("warning", split, "an id is there twice", name)
        first = self.contents.seen_before(split, number, row)
        if first is not None:
            other = "earlier in the split" if first[0] == split else f"in {first[0]}, too"
            self.findings.note("warning", split, f"the same sample, by content, is {other}", f"{name} = {first[1]}")
        for key in MODALITIES:
            for what in self.scans[split, key].add(getattr(row, key)):
                of_no_frames = what == ABSENT and key in row.empty
                self.findings.note("warning", split, f"{key} {_NO_FRAMES if of_no_frames else what}", name)

    def _check_width(self, key: str, frames: int, width: int, where: str) -> None:
        first = self.widths.setdefault(key, width)
        self.alike[key][width == first] += 1
        if len(self.lengths[key]) < 2:
            self.lengths[key].add(frames)
        if width != first:
            raise RowError(
                f"'{key}' has {width} features per frame, earlier rows have {first}",
                where=where,
                cause=f"'{key}' has not the {first} features per frame of earlier rows",
                value=width,
            )

    def outcome(self) -> Verification:
        """The counts of every split, the findings and the verdict."""
        for split, check in self.splits.items():
            if not check.samples and not check.unusable:
                empty = MsekitError("the split has no sample", fix=advice_on_empty(self.spec, split))
                self.findings.refuse_split(split, empty, "")
            elif check.expected is not None and check.samples + check.unusable != check.expected:
                size = check.samples + check.unusable
                self.findings.note(
                    "warning", split, f"{size} samples; '{self.spec.name}' as published has {check.expected}"
                )
            missing = [label for label, count in check.labels.items() if not count]
            if check.without_label:
                self.findings.note("warning", split, remark(split, check.without_label, check.samples))
            if check.samples > check.without_label and (gone := self._gone(check)):
                what = f"no sample answers {', '.join(gone)}"
                self.findings.note("error" if split == "train" else "warning", split, what)
                missing = [
                    label
                    for label in missing
                    if not {label.partition(":")[0], label.replace(":", ".", 1)} & gone.keys()
                ]
            if missing and check.samples > check.without_label:
                self.findings.note("warning", split, f"no sample is labelled {', '.join(missing)}")
            check.labels = in_order(self.spec, check.labels)
            for key in MODALITIES:
                scanned = self.scans[split, key].outcome()
                setattr(check, key, scanned)
                if scanned.constant and split == "train":
                    numbers = ", ".join(map(str, scanned.constant[:10]))
                    more = ", …" if len(scanned.constant) > 10 else ""
                    what = f"{key}: {len(scanned.constant)} of {scanned.width} features are constant"
                    self.findings.note("warning", split, f"{what} ({numbers}{more})")
        for key in MODALITIES:
            if key not in self.widths and any(check.samples for check in self.splits.values()):
                self._missing(key)
        findings = self.findings.sorted()
        self._say_the_range(findings)
        self._ask_for_turned(findings)
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

    def _gone(self, check: SplitCheck) -> dict[str, None]:
        """The questions that no sample of a split answers."""
        return {name: None for name, count in check.unanswered.items() if count == check.samples}

    def _say_the_range(self, findings: list[Finding]) -> None:
        """Say which range has room for all labels, where some are outside."""
        outside = [finding for finding in findings if finding.cause.startswith("labels are outside")]
        found = [value for finding in outside for value in (finding.low, finding.high) if value is not None]
        if not found or self.spec.targets:  # whose range it is, the row's message says
            return
        found += [float(label) for check in self.splits.values() for label, count in check.labels.items() if count]
        low, high = math.floor(min(found)), math.ceil(max(found))
        for finding in outside:
            if -100 <= low < high <= 100:
                finding.fix = f"Check that this is the right file, or give --range {low},{high}"

    def _ask_for_turned(self, findings: list[Finding]) -> None:
        """Ask whether arrays are (features, frames) where all have as many frames and most have other features."""
        for key in MODALITIES:
            if len(self.lengths[key]) == 1 and self.alike[key][False] >= self.alike[key][True]:
                for finding in findings:
                    if finding.cause.startswith(f"'{key}' has not the "):
                        finding.fix = "Are the arrays (features, frames)? Then save x.T"

    def _missing(self, key: str) -> None:
        """Say once that the whole set lacks a modality."""
        for split in SPLITS:
            self.findings.all.pop(("warning", split, f"{key} {ABSENT}"), None)
        expected = getattr(self.spec, f"{key}_width")
        if expected:
            self.findings.note("error", None, f"no sample has {key}; '{self.spec.name}' has a width of {expected}")
        elif expected is None and (self.unread.error is None or key not in self.unread.error.what):
            self.findings.note("warning", None, f"no sample has {key}")
