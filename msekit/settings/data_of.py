"""The data set that settings name."""

from __future__ import annotations

from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.settings.config import RunConfig


def spec_of(config: RunConfig) -> DatasetSpec:
    """A run's data set: the catalogue's entry or one's own, where its files lie, and what the settings say of it.

    Raises:
        MsekitError: No such data set.
    """
    return resolve_dataset(config.dataset, config.source, config.description.model_dump())
