"""Samples of a prepared data set to pick from on the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.batches.dialogue import previous
from msekit.data.cache.label_counts import label_names
from msekit.data.cache.split_table import SplitTable
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.data.open_data import at_hand, open_data
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.description import read_description
from msekit.runs.moved_data import with_data
from msekit.settings.data_of import spec_of

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

    def truth(self, index: int) -> str | None:
        """Its label; None where it has none."""
        value = self.table.labels[index]
        if self.spec.targets:
            return ", ".join(label_names(self.spec, tuple(value.tolist()))) or None
        if np.isnan(value):
            return None
        return self.spec.labels[int(value)] if self.spec.labels else f"{value:+.1f}"

    def said(self, index: int, context: int) -> dict[str, Any]:
        """Its speaker and up to `context` earlier utterances, oldest first, as `prepare_sample` takes them."""
        earlier = previous(self.table.dialogues[: index + 1], context)[index] if context else []
        history = [(self.table.speakers[place], self.table.texts[place]) for place in reversed(earlier)]
        return {"history": history or None, "speaker": self.table.speakers[index] if context else None}

    def given(self, index: int) -> dict[str, Any]:
        """Its features, as `prepare` of msekit.inference takes them; None for a modality that it lacks."""
        frames = {"audio": self.table.audio(index), "vision": self.table.vision(index)}
        return {modality: values if len(values) else None for modality, values in frames.items()}


def shelf_of(
    run: Path, dataset: str | None, source: Path | None, reporter: Reporter, *, required: bool = False
) -> Shelf | None:
    """The shelf of a run: samples of the data set it was trained on, or of another.

    Args:
        run: Its folder; an exported one does not say where its data lay.
        dataset: Catalogue name or YAML of another data set.
        source: Where its files, or without `dataset` the run's own, lie now.
        reporter: Where notices go.
        required: Whether a run without a shelf is of no use.

    Returns:
        The shelf; None, and a line that says why, where no data set is named and the run's own cannot be opened.

    Raises:
        MsekitError: A data set that was named or is required cannot be used.
    """
    if dataset is not None:
        return _opened(run, resolve_dataset(dataset, source), reporter)
    try:
        return _opened(run, spec_of(with_data(read_config(run), source)), reporter)
    except MsekitError as error:
        if source is not None or required:
            raise
        where = "--source says where its files lie now, --dataset names other data"
        reporter.note(f"no samples to pick from ({where}): {error}")
        return None


def _opened(run: Path, spec: DatasetSpec, reporter: Reporter) -> Shelf:
    """The data set's test split, in the precision that the run's features had; nothing is downloaded."""
    spec, cache = open_data(at_hand(spec), read_description(run).feature_dtype, reporter)
    return Shelf(spec.name, cache.split("test"), spec)
