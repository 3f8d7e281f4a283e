"""Share a run: `export_run` writes the plug-in with a model card, `push_folder` uploads that and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from msekit.errors import MsekitError
from msekit.inference.restore import usable_adapter
from msekit.runs.description import Description, read_description, write_description
from msekit.runs.files import ADAPTER, DESCRIPTION, write_text
from msekit.runs.folder import find_run
from msekit.sharing.card import evaluations, model_card
from msekit.words import reason

CARD_FILE = "README.md"
EVALUATIONS = ".eval_results/msekit.yaml"
"""The test metrics in the hub's own form, where the data set has a hub id."""
_FILES = (ADAPTER, DESCRIPTION, CARD_FILE)


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


def push_folder(folder: Path, repo: str, *, public: bool = False, message: str | None = None) -> str:
    """Upload an exported folder to the hub. The token is huggingface_hub's affair: it is never read here.

    Args:
        folder: What `export_run` wrote.
        repo: `user/name`; made if it does not exist.
        public: Let everyone see it; otherwise it is private.
        message: Of the commit.

    Returns:
        The commit's address.

    Raises:
        MsekitError: Not an exported folder, no right to upload, a public repository without `public`, no network.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    for name in _FILES:
        if not (folder / name).is_file():
            raise MsekitError(f"{name} is missing: not an exported folder", where=folder, fix="Use `msekit export`.")
    usable_adapter(folder, read_description(folder))
    card = (folder / CARD_FILE).read_text(encoding="utf-8").replace('load_run(".")', f'load_run("{repo}")')
    operations = [
        CommitOperationAdd(ADAPTER, folder / ADAPTER),
        CommitOperationAdd(DESCRIPTION, folder / DESCRIPTION),
        CommitOperationAdd(CARD_FILE, card.encode()),
    ]
    if (folder / EVALUATIONS).is_file():
        operations.append(CommitOperationAdd(EVALUATIONS, folder / EVALUATIONS))
    api = HfApi()
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.model_info(repo).private:
            raise MsekitError("the repository exists and is public", where=repo, fix="Use --public, or another name.")
        done = api.create_commit(repo, operations, commit_message=message or "Upload an msekit plug-in")
    except HFValidationError as error:
        raise MsekitError(f"'{repo}' is not a repository name", fix="Use user/name.") from error
    except LocalTokenNotFoundError as error:
        raise MsekitError("not logged in to the hub", fix="Log in with `hf auth login`.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        login = " Log in with `hf auth login` and a token that may write." if status in (401, 403) else ""
        raise MsekitError(f"the hub refused the upload (status {status})", where=repo, fix=login.strip()) from None
    except OfflineModeIsEnabled:
        raise MsekitError("the hub is switched off by HF_HUB_OFFLINE", where=repo, fix="Unset it.") from None
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # the first: no network, no answer
        kind = type(error.__cause__ or error).__name__
        raise MsekitError(f"the upload failed: {kind}", where=repo, fix="Check the network and try again.") from None
    return str(done.commit_url)
