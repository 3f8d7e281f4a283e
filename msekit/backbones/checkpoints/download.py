"""Checkpoints from the hub: what is cached is used without touching the network, the rest is downloaded.

Only configuration, tokenizer and weight files are fetched, never code. They are kept in huggingface_hub's cache, where
other programs find them; a download that was interrupted goes on where it stopped, in the middle of a file too.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock

from msekit.backbones.checkpoints.kinds import (
    LORA,
    lora,
    read_small,
    refuse_other_kinds,
    refuse_quantised,
    refuse_repository,
)
from msekit.backbones.checkpoints.stated import refuse_stated
from msekit.backbones.checkpoints.weight_files import weight_files
from msekit.downloads import HubRepo, download, explained, listing, no_bar
from msekit.errors import MsekitError

_SMALL = ["*.json", "*.model", "*.txt", "*.tiktoken"]
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "qwen.tiktoken", "vocab.json", "vocab.txt", "spiece.model")


_GIVE = "Or give the folder of a downloaded checkpoint; `msekit backbone list` shows known names."


def cached_folder(repo: str, revision: str | None = None, beside: tuple[str, ...] = _TOKENIZERS) -> Path | None:
    """The local folder of a hub model that was downloaded completely; None where anything is missing.

    Args:
        repo: Hub model repository.
        revision: Commit, tag or branch; None for the main branch as it was when downloaded.
        beside: Names of which one file must be there beside configuration and weights.
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
    return folder if any((folder / name).is_file() for name in beside) else None


def look_at_hub(repo: str) -> None:
    """Refuse a hub model that is neither here nor to be had: one question, by which nothing is fetched.

    Raises:
        MsekitError: No such model, something else than an LLM's checkpoint by its files' names, a gated one without a
            token, or a hub that cannot be reached.
    """
    if (folder := cached_folder(repo)) is not None:
        refuse_other_kinds(folder)
    else:
        wanted = HubRepo(repo, "model", None)
        with explained(wanted, "the model", _GIVE):
            refuse_repository(listing(wanted)[1], repo)


def hub_folder(
    repo: str, revision: str | None = None, beside: tuple[str, ...] = _TOKENIZERS, otherwise: str = _GIVE
) -> Path:
    """The local folder of a hub model, downloaded first where it is not complete.

    Args:
        repo: Hub model repository.
        revision: Commit, tag or branch; None for the main branch.
        beside: See `cached_folder`.
        otherwise: How to do without the hub, for the message.

    Raises:
        MsekitError: No such model, something else than an LLM's checkpoint, a gated one without a token, or a hub that
            cannot be reached.
    """
    from huggingface_hub import snapshot_download

    if cached := cached_folder(repo, revision, beside):
        return cached
    wanted = HubRepo(repo, "model", revision)
    with explained(wanted, "the model", otherwise):
        commit, published = listing(wanted)
        refuse_repository(published, repo)
        names = _needed(published)
        cache = _cache_folder(repo)
        for file in sorted((published[name] for name in names), key=lambda file: file.size):
            blob = cache / "blobs" / file.digest
            lock = cache.parent / ".locks" / cache.name / f"{file.digest}.lock"  # huggingface_hub's own
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                if not blob.exists():
                    download(wanted, commit, file, blob.with_name(f"{file.digest}.partial"), blob)
            if file.path == LORA:
                raise lora(read_small(blob), repo)
            if file.path == "config.json":  # small files come first: weights of no use are not fetched
                refuse_quantised(read_small(blob), repo)
                if beside == _TOKENIZERS:  # an LLM, not an encoder of clips
                    refuse_stated(read_small(blob), repo)
        # all is there: it links
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=names, tqdm_class=no_bar()))
    weight_files(folder)
    return folder


def _needed(paths: Iterable[str]) -> list[str]:
    """The files of a repository that a checkpoint consists of; safetensors where it has both kinds of weights."""
    paths = [path for path in paths if "/" not in path]
    chosen = [path for path in paths if any(fnmatch(path, pattern) for pattern in _SMALL)]
    for pattern in _WEIGHTS:
        if weights := [path for path in paths if fnmatch(path, pattern)]:
            return sorted({*chosen, *weights})
    return chosen


def _cache_folder(repo: str) -> Path:
    """Where huggingface_hub keeps a model."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
