"""Upload an exported plug-in to the hub. Files, name, network and log-in are looked at before torch loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msekit.errors import MsekitError
from msekit.runs.description import read_description
from msekit.runs.files import ADAPTER, DESCRIPTION
from msekit.sharing.card import CARD_FILE, EVALUATIONS

_FILES = (ADAPTER, DESCRIPTION, CARD_FILE)


def push_folder(folder: Path, repo: str, *, public: bool = False, message: str | None = None) -> str:
    """Upload an exported folder to the hub. Of the token nothing is asked here but whether there is one.

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
    for name in _FILES:
        if not (folder / name).is_file():
            raise MsekitError(f"{name} is missing: not an exported folder", where=folder, fix="Use `msekit export`.")
    description = read_description(folder)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    api = HfApi()
    with _in_our_words(repo):
        api.repo_exists(repo)  # a name, and a hub that answers
    if get_token() is None:
        raise MsekitError("not logged in to the hub", fix="Log in with `hf auth login`.")
    from msekit.inference.restore import usable_adapter

    usable_adapter(folder, description)
    card = (folder / CARD_FILE).read_text(encoding="utf-8").replace('load_run(".")', f'load_run("{repo}")')
    operations = [
        CommitOperationAdd(ADAPTER, folder / ADAPTER),
        CommitOperationAdd(DESCRIPTION, folder / DESCRIPTION),
        CommitOperationAdd(CARD_FILE, card.encode()),
    ]
    if (folder / EVALUATIONS).is_file():
        operations.append(CommitOperationAdd(EVALUATIONS, folder / EVALUATIONS))
    with _in_our_words(repo):
        api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.model_info(repo).private:
            raise MsekitError("the repository exists and is public", where=repo, fix="Use --public, or another name.")
        done = api.create_commit(repo, operations, commit_message=message or "Upload an msekit plug-in")
    return str(done.commit_url)


@contextmanager
def _in_our_words(repo: str) -> Iterator[None]:
    """What huggingface_hub raises, as one line of ours."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
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
