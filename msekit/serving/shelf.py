"""Samples of a prepared data set to pick from on the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msekit.data.cache.cache import CacheSettings, prepare
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.errors import MsekitError
from msekit.settings.resolve import read_run_file

LONGEST_SHELF = 100


@dataclass(frozen=True)
class Shelf:
    """The first samples of a data set's test split."""

    name: str
    table: SplitTable
    spec: DatasetSpec

    def __len__(self) -> int:
        return min(len(self.table), LONGEST_SHELF)

    def title(self, index: int) -> str:
        """What the page calls a sample."""
        text = self.table.texts[index]
        return f"{self.table.ids[index]}: {text[:60]}{'…' if len(text) > 60 else ''}"

    def truth(self, index: int) -> str:
        """Its label."""
        value = self.table.labels[index]
        return self.spec.labels[int(value)] if self.spec.labels else f"{value:+.1f}"

    def given(self, index: int) -> dict[str, Any]:
        """Its features, as `prepare` of msekit.inference takes them; None for a modality that it lacks."""
        frames = {"audio": self.table.audio(index), "vision": self.table.vision(index)}
        return {modality: values if len(values) else None for modality, values in frames.items()}


def shelf_of(run: Path, dataset: str | None = None, source: Path | None = None) -> Shelf | None:
    """The shelf of a run: samples of the data set it was trained on, or of another.

    Args:
        run: Its folder; an exported one does not say where its data lay.
        dataset: Catalogue name or YAML of another data set.
        source: Where its files lie.

    Returns:
        The shelf; None where no data set is named and the run's own cannot be opened.

    Raises:
        MsekitError: A data set that was named and cannot be used.
    """
    named = dataset is not None
    try:
        if dataset is None:
            settings = read_run_file(run / "config.yaml")
            dataset, source = str(settings["dataset"]), settings.get("source") and Path(settings["source"])
        spec = resolve_dataset(dataset, source)
        return Shelf(spec.name, prepare(spec, CacheSettings()).split("test"), spec)
    except (MsekitError, KeyError):
        if named:
            raise
        return None
