"""What makes two runs the same run, so that one process may continue what another began."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from msekit import __version__
from msekit.config import RunConfig
from msekit.training.build import Parts


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's numbers: not where its files lie, how often it is saved, or where it fits.

    What describes the data set is in its cache's fingerprint and in the prompt's hash.
    """
    files = ("output", "source", "dataset", "description", "save_minutes", "timeout_minutes", "profile")
    settings = config.model_dump(mode="json", exclude=dict.fromkeys(files, True) | {"model": {"checkpointing"}})
    settings["evaluation"]["batch_size"] = 16  # whatever it is; states of runs that had this number can go on
    return settings


def run_key(config: RunConfig, parts: Parts) -> str:
    """What two processes must share for one to continue the other's run: settings, data, weights, prompt."""
    settings = settings_of(config) | {"text_limit": parts.text_limit, "dtype": str(parts.backbone.model.dtype)}
    fingerprints = [parts.cache.info.fingerprint, parts.backbone.fingerprint, parts.model.layout.sha256]
    identity = [__version__, settings, *fingerprints]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
