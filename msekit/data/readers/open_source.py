"""LAYOUTS: one entry per layout of data; `open_source`: a DatasetSpec → its rows, for everything that needs rows.

Adding a layout is a reader, an entry here and its name in `catalogue.Layout` (and in `layout_of`, if files show it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msekit.data.catalogue import DatasetSpec, Layout
from msekit.data.readers.own_folder import OwnSet
from msekit.data.readers.published import PublishedSet, erc_files, msa_files
from msekit.data.readers.rows import RowSource
from msekit.data.readers.synthetic import SyntheticSet


@dataclass(frozen=True)
class LayoutEntry:
    """One layout of data."""

    reader: Callable[[DatasetSpec], RowSource]
    files: Callable[[DatasetSpec], dict[str, str]] | None = None
    """The names of its files by split, for sets that can be downloaded; None for a layout that nobody publishes."""


LAYOUTS: dict[Layout, LayoutEntry] = {
    "msa-pickle": LayoutEntry(PublishedSet, msa_files),
    "erc-pickle": LayoutEntry(PublishedSet, erc_files),
    "folder": LayoutEntry(OwnSet),
    "csv": LayoutEntry(OwnSet),
    "synthetic": LayoutEntry(SyntheticSet),
}


def open_source(spec: DatasetSpec) -> RowSource:
    """The rows of a data set.

    Raises:
        MsekitError: Its files are not there.
    """
    return LAYOUTS[spec.layout].reader(spec)
