"""Samples that lack a modality: which samples do, and what a run does about them (`data.on_missing`).

`zero`     the modality's projected vector is zero, so its term drops out of the mix
`learned`  one trained vector per modality takes its place, so that the same adapter serves incomplete samples
`drop`     such samples are left out of training; in evaluation every sample counts, treated as by `zero`
`error`    such samples are refused, in training and evaluation alike

A modality that the whole set lacks, or that `data.without` withholds, makes no sample incomplete; under `learned` its
vector stands in for it too. Nothing ever takes another sample's features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from msekit.data.cache.split_table import SplitTable
from msekit.errors import MsekitError


def has(table: SplitTable, modality: str) -> np.ndarray:
    """(N,) bool: which samples of a split have the modality."""
    return getattr(table, f"{modality}_lengths") > 0


def complete(table: SplitTable, modalities: Iterable[str]) -> np.ndarray:
    """(N,) bool: which samples of a split have all of the modalities."""
    return np.logical_and.reduce([np.ones(len(table), bool), *(has(table, modality) for modality in modalities)])


def refuse_incomplete(table: SplitTable, modalities: Iterable[str]) -> None:
    """Refuse a split with incomplete samples.

    Raises:
        MsekitError: A sample is incomplete; the message names the first.
    """
    for modality in modalities:
        absent = np.flatnonzero(~has(table, modality))
        if len(absent):
            raise MsekitError(
                f"sample '{table.ids[absent[0]]}' has no {modality}, nor have {len(absent) - 1} others",
                where=f"{table.name} row {absent[0]}",
                fix="Use --on-missing zero, learned or drop.",
            )


def training_positions(table: SplitTable, modalities: Iterable[str], drop: bool, limit: int | None) -> np.ndarray:
    """Positions of the samples to train on, ascending and the same for every seed.

    Args:
        table: The train split.
        modalities: What the adapter is fed.
        drop: Leave out samples that lack one of the modalities.
        limit: Draw this many samples; None for all.

    Raises:
        MsekitError: Every sample lacks a modality.
    """
    size = len(table)
    order = np.arange(size) if limit is None else np.random.default_rng(0).permutation(size)
    kept = order[complete(table, modalities)[order]] if drop else order
    if not len(kept):
        raise MsekitError(f"no sample of {table.name} has all modalities", fix="Use --on-missing zero or learned.")
    return np.sort(kept[:limit])
