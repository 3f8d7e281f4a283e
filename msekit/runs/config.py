"""`config.yaml`: a run's resolved settings."""

from __future__ import annotations

from pathlib import Path

from msekit.backbones.holding import held_today
from msekit.runs.files import CONFIG, check_text, sealed_text, write_text
from msekit.settings.config import RunConfig
from msekit.settings.resolve import dump, read_run_file, validated


def read_config(folder: Path) -> RunConfig:
    """The settings that a run was made with.

    Raises:
        MsekitError: The file is missing or damaged, or holds an unknown setting.
    """
    where = folder / CONFIG
    settings = read_run_file(where)
    check_text(where.read_bytes(), where)
    model = settings.get("model")
    if isinstance(model, dict) and "quantization" in model:
        settings["model"] = model | {"quantization": held_today(str(model["quantization"]))}
    return validated(settings, where=where)


def write_config(config: RunConfig) -> None:
    """Write a run's settings into its folder."""
    write_text(config.output / CONFIG, sealed_text(dump(config)))
