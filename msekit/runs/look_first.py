"""What can be told before a library loads: whether names, files and folders are there. No torch; no data is read."""

from __future__ import annotations

from pathlib import Path

from msekit.backbones.catalogue import BACKBONES
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.data.readers.open_source import open_source
from msekit.runs.go_on import asks_for_more, refuse_no_more, refuse_taken
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of


def look_first(config: RunConfig, resume: bool) -> None:
    """Refuse a run that cannot begin, as far as it shows in a moment.

    Raises:
        MsekitError: Its folder is taken, the run there cannot go on for more epochs, its data set's files are not there, or nobody knows its backbone.
    """
    refuse_taken(config, resume)
    if resume and asks_for_more(config):
        refuse_no_more(config)
    spec = spec_of(config)
    if spec.source is not None or spec.hub is None:  # else they are downloaded
        open_source(spec)
    name = config.backbone
    if name not in BACKBONES and name.count("/") != 1 and not Path(name).exists():
        checkpoint_folder(name)
