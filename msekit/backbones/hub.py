"""Checkpoints from the hub: what is cached is used without touching the network, the rest is downloaded.

Only configuration, tokenizer and weight files are fetched, never code. A broken connection is taken up again in the
middle of a file; a download that was stopped goes on with the files that are not complete.
"""

from __future__ import annotations

from pathlib import Path

from msekit.backbones.shards import weight_files
from msekit.errors import MsekitError

_SMALL = ["*.json", "*.model", "*.txt", "*.tiktoken"]
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "qwen.tiktoken", "vocab.json", "vocab.txt", "spiece.model")


def cached_folder(repo: str, revision: str | None = None) -> Path | None:
    """The local folder of a hub model that was downloaded completely; None where anything is missing.

    Args:
        repo: Hub model repository.
        revision: Commit, tag or branch; None for the main branch as it was when downloaded.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(repo, "config.json", revision=revision)
    except HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        weight_files(folder)
    except MsekitError:
        return None
    return folder if any((folder / name).is_file() for name in _TOKENIZERS) else None


def hub_folder(repo: str, revision: str | None = None) -> Path:
    """The local folder of a hub model, downloaded first where it is not complete.

    Raises:
        MsekitError: No such model, a gated one without a token, or a hub that cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if cached := cached_folder(repo, revision):
        return cached
    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*_SMALL, weights]))
            if list(folder.glob(weights)):
                break
    except GatedRepoError as error:
        raise MsekitError(
            "the model is gated: its licence must be accepted first",
            where=repo,
            fix="Accept it on the model's hub page, then run `hf auth login` or set HF_TOKEN, and try again; "
            "or give the folder of a downloaded checkpoint.",
        ) from error
    except RevisionNotFoundError as error:
        raise MsekitError(f"the model has no revision '{revision}'", where=repo) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise MsekitError(
            "no such model on the hub (or a private one)", where=repo, fix="`msekit backbone list` shows known names."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise MsekitError(
            "the model is neither in the local cache nor reachable on the hub",
            where=repo,
            fix="Check the network, or give the folder of a downloaded checkpoint.",
        ) from error
    weight_files(folder)
    return folder
