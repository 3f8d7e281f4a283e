"""Share a run: `export_run` writes the plug-in with a model card; `push.push_folder` uploads that and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from msekit.errors import MsekitError
from msekit.inference.restore import usable_adapter
from msekit.runs.description import Description, read_description, write_description
from msekit.runs.files import ADAPTER, write_text
from msekit.runs.folder import find_run
from msekit.sharing.card import CARD_FILE, EVALUATIONS, evaluations, model_card
from msekit.words import reason


def export_run(run: Path, folder: Path, *, licence: str | None = None, data_licence: str | None = None) -> Description:
    """Write a run's plug-in and its model card into a folder of its own.

    Args:
        run: The run's folder.
        folder: New or empty.
        licence: What the plug-in itself may be used for, in the owner's words.
        data_licence: The terms of the data it was trained on.

    Returns:
        The description that was written. A backbone that was a folder of this machine is named by the folder's last
        part alone: a path means nothing elsewhere.

    Raises:
        MsekitError: No run there, damaged files, or a folder that holds something.
    """
    source = find_run(run)
    description = read_description(source)
    usable_adapter(source, description)  # what cannot be loaded is not shared
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MsekitError("the export folder already holds something", where=folder, fix="Choose a new one.")
    name = Path(description.backbone.name)
    if name.is_absolute() or name.is_dir():
        unnamed = description.backbone.model_copy(update={"name": name.name})
        description = description.model_copy(update={"backbone": unnamed})
    made_by = {key: record.model_copy(update={"place": None}) for key, record in description.dataset.extractors.items()}
    dataset = description.dataset.model_copy(update={"extractors": made_by})  # a place is a private path
    description = description.model_copy(update={"dataset": dataset})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_description(folder, description)
        shutil.copyfile(source / ADAPTER, folder / ADAPTER)
    except OSError as error:
        raise MsekitError(f"the export folder cannot be written: {reason(error)}", where=folder) from error
    shared = read_description(folder)
    write_text(folder / CARD_FILE, model_card(source, shared, licence, data_licence))
    if (measured := evaluations(source, shared)) is not None:
        (folder / EVALUATIONS).parent.mkdir()
        write_text(folder / EVALUATIONS, measured)
    return shared
