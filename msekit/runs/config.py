"""`config.yaml`: a run's resolved settings."""

from __future__ import annotations

from pathlib import Path

from msekit.backbones.holding import held_today
from msekit.runs.files import CONFIG, write_text
from msekit.settings.config import RunConfig
from msekit.settings.resolve import dump, read_run_file, validated


def read_config(folder: Path) -> RunConfig:
    """The settings that a run was made with.

    Raises:
        MsekitError: The file is missing or damaged, or holds an unknown setting.
    """
    settings = read_run_file(folder / CONFIG)
    model = settings.get("model")
    if isinstance(model, dict) and "quantization" in model:
        settings["model"] = model | {"quantization": held_today(str(model["quantization"]))}
    return validated(settings, where=folder / CONFIG)


def write_config(config: RunConfig) -> None:
    """Write a run's settings into its folder."""
    write_text(config.output / CONFIG, dump(config))
