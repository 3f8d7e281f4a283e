"""`config.yaml`: a run's resolved settings."""

from __future__ import annotations

from pathlib import Path

from msekit.runs.files import CONFIG, write_text
from msekit.settings.config import RunConfig
from msekit.settings.resolve import dump, read_run_file, validated


def read_config(folder: Path) -> RunConfig:
    """The settings that a run was made with.

    Raises:
        MsekitError: The file is missing or damaged, or holds an unknown setting.
    """
    return validated(read_run_file(folder / CONFIG), where=folder / CONFIG)


def write_config(config: RunConfig) -> None:
    """Write a run's settings into its folder."""
    write_text(config.output / CONFIG, dump(config))
