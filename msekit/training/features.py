"""How a run's audio and vision reach the adapter: what its settings ask for, with the train split's statistics.

Shapes: L frames, D features.
"""

from __future__ import annotations

import numpy as np

from msekit.adapters.sizes import ADAPTERS, reads_summary_alone
from msekit.data.batches.preprocess import Preprocessor, resting_values
from msekit.data.cache.cache import Cache
from msekit.data.cache.split_table import ModalityInfo
from msekit.settings.config import RunConfig

_LOOKED_AT = 20_000  # frames among which resting values are searched


def make_preprocessors(config: RunConfig, cache: Cache) -> dict[str, Preprocessor | None]:
    """Each modality's way to the adapter; None where the set lacks it or the settings withhold it."""
    infos = {"audio": cache.info.audio, "vision": cache.info.vision}
    return {
        name: None if name in config.withheld or not info.width else feature_way(config, name, info, cache)
        for name, info in infos.items()
    }


def feature_way(config: RunConfig, modality: str, info: ModalityInfo, cache: Cache) -> Preprocessor:
    """How a modality's features reach the adapter; for the ablation without audio and vision, that they do not."""
    if not config.reads_features:
        return Preprocessor(stand_in=getattr(config.adapter, f"{modality}_hidden"))
    summarised = ADAPTERS[config.adapter.name].has_opinion
    rest = resting_values(some_frames(cache, modality)) if summarised else None
    trim, most = config.data.trim, config.data.max_frames
    if reads_summary_alone(config.adapter.name, info.width):
        trim, most = 0.0, 1  # nobody looks at the sequence but for whether there is one
    return Preprocessor.of(info, config.data.standardise, trim, most, rest)


def some_frames(cache: Cache, modality: str) -> np.ndarray:
    """At least `_LOOKED_AT` frames of the train split, if it has so many, from samples all over it: (L, D)."""
    frames_of, samples = getattr(cache.split("train"), modality), len(cache.split("train"))
    parts, count = [], 0
    for index in np.random.default_rng(0).permutation(samples):
        parts.append(frames_of(int(index)))
        count += len(parts[-1])
        if count >= _LOOKED_AT:
            break
    return np.concatenate(parts)
