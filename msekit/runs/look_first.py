"""What can be told before a library loads: whether names, files and folders are there. No torch; no data is read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from msekit.backbones.catalogue import BACKBONES
from msekit.backbones.checkpoints.download import look_at_hub
from msekit.backbones.checkpoints.kinds import gguf_at
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.open_source import open_source
from msekit.errors import MsekitError, needs_extra
from msekit.runs.description import read_description
from msekit.runs.files import DESCRIPTION, REPORT
from msekit.runs.go_on import asks_for_more, refuse_no_more, refuse_taken
from msekit.settings.choices import TRACKERS
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of


def look_first(config: RunConfig, resume: bool) -> None:
    """Refuse a run that cannot begin, as far as it shows in a moment.

    Raises:
        MsekitError: Its folder is taken, the run there cannot go on for more epochs, its data set's files are not
            there, or its backbone is unknown or something else than an LLM.
    """
    refuse_taken(config, resume)
    refuse_absent_trackers(config)
    if resume and asks_for_more(config):
        refuse_no_more(config)
    look_at_data(spec_of(config))
    look_at_backbone(config.backbone)


def look_at_what_it_needs(config: RunConfig) -> None:
    """Refuse a run that is yet to end and whose data or backbone are not there.

    Raises:
        MsekitError: They are not.
    """
    if not (config.output / REPORT).is_file():
        look_at_data(spec_of(config))
        look_at_backbone(config.backbone)


def look_at_data(spec: DatasetSpec) -> None:
    """Refuse a data set whose files are not there, unless they are to be downloaded.

    Raises:
        MsekitError: They are not.
    """
    if spec.source is not None or spec.hub is None:
        open_source(spec)


def look_at_backbone(name: str) -> None:
    """Refuse a backbone that nobody knows, or that is something else than an LLM; nothing is built or downloaded.

    Raises:
        MsekitError: It is.
    """
    if name not in BACKBONES and Path(name).exists():
        if (Path(name) / DESCRIPTION).is_file():
            trained_on = read_description(Path(name)).backbone.name
            fix = f"It was trained on --backbone {trained_on}."
            raise MsekitError("a trained plug-in, not an LLM", where=name, fix=fix)
        if gguf_at(Path(name)) is None:
            checkpoint_folder(name)
    elif name not in BACKBONES and (name.count("/") != 1 or name.endswith(".gguf")):
        checkpoint_folder(name)
    elif name not in BACKBONES:
        look_at_hub(name)


def refuse_absent_trackers(config: RunConfig) -> None:
    """Refuse a run that is to be shown where no package can show it.

    Raises:
        MsekitError: The package of an experiment tracker is not installed.
    """
    for name in config.tracking.trackers:
        if find_spec(TRACKERS[name]) is None:
            raise needs_extra(f"the tracker {name} needs the package {TRACKERS[name]}", name)
