"""What makes two runs the same run."""

from __future__ import annotations

from typing import Any

from msekit.settings.config import RunConfig


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's numbers: not where its files lie, how often it is saved, or where it fits.

    What describes the data set is in its cache's fingerprint and in the prompt's hash.
    """
    files = ("output", "source", "dataset", "description", "save_minutes", "timeout_minutes", "profile")
    settings = config.model_dump(
        mode="json", exclude=dict.fromkeys(files, True) | {"model": {"checkpointing", "passes"}}
    )
    settings["evaluation"]["batch_size"] = 16  # whatever it is; states of runs that had this number can go on
    return settings
