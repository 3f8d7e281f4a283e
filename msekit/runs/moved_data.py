"""A trained run's data, where it lies now: told before a library loads, with the option that says where it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msekit.errors import MsekitError, UnsaidLabelsError
from msekit.runs.config import read_config
from msekit.runs.description import read_description
from msekit.runs.look_first import look_at_data
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of

_DESCRIPTIONS = (".yaml", ".yml")


def look_at_data_of(run: Path, source: Path | None = None, dataset: str | None = None) -> None:
    """Refuse to look at a trained run again where its data, or what is given instead, is not there.

    Raises:
        MsekitError: It is not, or the run is damaged or a baseline.
    """
    read_description(run)
    with_data(read_config(run), source, dataset)


def with_data(config: RunConfig, source: Path | None = None, dataset: str | None = None) -> RunConfig:
    """A run's settings with the place of its data now, or with another data set.

    Args:
        config: As the run was trained.
        source: Where the files lie now. Where the YAML that described them went with them, the one of its name there.
        dataset: Another data set, which brings its own place unless one is given.

    Raises:
        MsekitError: The data is not there.
    """
    changes: dict[str, Any] = {}
    if dataset is not None:
        changes = {"dataset": dataset, "source": None if source is None else source.expanduser().resolve()}
    elif source is not None:
        changes = _moved(config, source.expanduser().resolve())
    config = config.model_copy(update=changes)
    try:
        look_at_data(spec_of(config))
    except UnsaidLabelsError as error:  # it is in no catalogue, and none of these commands takes --labels
        raise MsekitError(error.what, where=error.where, fix="Describe it in a YAML: --dataset FILE.yaml") from error
    except MsekitError as error:
        if changes:
            raise
        lost = _lost_description(config)
        where = f"the folder that holds {lost.name} now" if lost else "PATH"
        raise MsekitError(
            f"the run's data is not where it was: {error.what}",
            where=error.where,
            fix=f"Say where it lies now: --source {where}.",
        ) from error
    return config


def _moved(config: RunConfig, source: Path) -> dict[str, Any]:
    """The settings that say that the run's data lies elsewhere now."""
    lost = _lost_description(config)
    if lost is None:
        return {"source": source}
    found = source if source.suffix.lower() in _DESCRIPTIONS else source / lost.name
    if not found.is_file():
        raise MsekitError(
            f"the run's data set was described in {lost}, which is gone, and there is no {lost.name}",
            where=source,
            fix="Give the folder that holds it now.",
        )
    return {"dataset": str(found), "source": None}


def _lost_description(config: RunConfig) -> Path | None:
    """The YAML that described the run's data set, if it is no longer there."""
    path = Path(config.dataset)
    return path if path.suffix.lower() in _DESCRIPTIONS and not path.is_file() else None
