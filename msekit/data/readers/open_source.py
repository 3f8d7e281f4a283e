"""DatasetSpec → the reader of its layout. Everything that needs rows starts here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers import synthetic
from msekit.data.readers.own_folder import OwnSet
from msekit.data.readers.published import PublishedSet
from msekit.data.readers.rows import ReadRow, Row, Source


class _Synthetic:
    """A generated data set, which has no files."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.source_files: list[Path] = []

    def rows(self, split: str) -> Iterator[Row]:
        return synthetic.synthetic_rows(self.spec.name, split)

    def readers(self, split: str) -> Iterator[ReadRow]:
        for row in self.rows(split):
            yield partial(_given, row)


def _given(row: Row) -> Row:
    return row


def open_source(spec: DatasetSpec) -> Source:
    """The rows of a data set.

    Raises:
        MsekitError: Its files are not there.
    """
    if spec.layout == "synthetic":
        return _Synthetic(spec)
    return OwnSet(spec) if spec.layout in ("folder", "csv") else PublishedSet(spec)
