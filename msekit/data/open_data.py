"""A data set's description → its cache, built first if needed: what every command does that reads samples."""

from __future__ import annotations

from typing import Literal

from msekit.data.cache.cache import Cache, prepare
from msekit.data.cache.split_table import CacheSettings
from msekit.data.catalogue import DatasetSpec
from msekit.data.download import downloaded, with_features
from msekit.data.extractor import other_language
from msekit.errors import MsekitError
from msekit.reporter import Reporter


def open_data(spec: DatasetSpec, dtype: Literal["float32", "float16"], reporter: Reporter) -> tuple[DatasetSpec, Cache]:
    """Find the features (on the hub where no source is named), build the cache if needed, pass its warnings on.

    Args:
        spec: The data set.
        dtype: Precision of the features in the cache.
        reporter: Where progress and warnings go.

    Returns:
        The data set with the place of its features, and the cache.

    Raises:
        MsekitError: Features that are missing or unusable.
    """
    spec = with_features(spec, reporter)
    with reporter.status(f"preparing {spec.name}"):
        cache = prepare(spec, CacheSettings(dtype=dtype))
    for warning in cache.info.warnings:
        reporter.warn(warning)
    if (note := other_language(spec.extractors, spec.language)) is not None:
        reporter.warn(note)
    return spec, cache


def at_hand(spec: DatasetSpec) -> DatasetSpec:
    """The data set with the place of its features on this machine; the hub is not asked.

    Raises:
        MsekitError: They would have to be downloaded first.
    """
    if spec.source is not None or spec.hub is None:
        return spec
    if (here := downloaded(spec)) is None:
        raise MsekitError(
            f"the features of '{spec.name}' are not on this machine", fix=f"Use `msekit data fetch {spec.name}`."
        )
    return spec.model_copy(update={"source": here})
