"""Files from the hub: `listing` gives their checksums, `download` loads one and puts it in place once it is whole.

An interrupted download, even a killed one, goes on where it stopped: the name of the unfinished file is the checksum of
the whole one, and a Range request asks for the rest. (huggingface_hub's own downloads begin a file anew in another
process.)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msekit.errors import MsekitError
from msekit.patience import Lines
from msekit.reporter import Reporter

_SECONDS = 10.0  # without an answer for so long, the hub counts as unreachable
_NOUNS = {"dataset": "data set", "model": "model"}


@dataclass(frozen=True)
class HubRepo:
    """A repository of the hub at a revision."""

    name: str
    """`owner/name`."""
    kind: Literal["dataset", "model"]
    revision: str | None = None
    """Commit, tag or branch; None for the main branch."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, as the hub lists it."""

    path: str
    size: int
    """Bytes."""
    digest: str
    """sha256 of a large file, git's blob id (sha1) of a small one; hexadecimal."""


def listing(repo: HubRepo) -> tuple[str, dict[str, HubFile]]:
    """The commit of a revision, and its files by their paths.

    Raises:
        MsekitError: The hub gives something else for a checksum.
        Exception: huggingface_hub's own errors, which `explained` turns into messages.
    """
    from huggingface_hub import HfApi

    info: Any = HfApi().repo_info(
        repo.name, revision=repo.revision, repo_type=repo.kind, timeout=_SECONDS, files_metadata=True
    )
    files = {}
    for sibling in info.siblings or ():
        lfs: Any = sibling.lfs
        size = lfs.size if lfs else sibling.size
        digest = str(lfs.sha256 if lfs else sibling.blob_id)
        files[sibling.rfilename] = HubFile(sibling.rfilename, int(size or 0), digest)
    for checksum in (str(info.sha), *(file.digest for file in files.values())):
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", checksum):  # they become names of files here
            raise MsekitError(f"the hub gives '{checksum}' for a checksum", where=repo.name)
    return str(info.sha), files


def download(repo: HubRepo, commit: str, file: HubFile, partial: Path, target: Path) -> None:
    """Load one file, from where an earlier try stopped; move it to its place once its checksum is right.

    Args:
        repo: Its repository.
        commit: Commit of the listing.
        file: The file.
        partial: Path of the unfinished file; its name must follow from the checksum.
        target: Path of the whole file, on the same disk.

    Raises:
        MsekitError: The disk has too little space, or the content arrived damaged.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(repo.name, file.path, repo_type=repo.kind, revision=commit)
    partial.parent.mkdir(parents=True, exist_ok=True)
    started = partial.stat().st_size if partial.is_file() else 0
    free = shutil.disk_usage(partial.parent).free
    if free < file.size - started:
        raise MsekitError(
            f"{file.path} needs {(file.size - started) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=partial.parent,
            fix="Free some space, or keep the downloads on another disk: "
            + ("set MSEKIT_CACHE." if repo.kind == "dataset" else "set HF_HOME."),
        )
    for offset in [started, 0] if started else [0]:  # the unfinished file may be damaged: then once more from the start
        with partial.open("ab") as stream:
            stream.truncate(offset if offset <= file.size else 0)
            stream.seek(0, os.SEEK_END)
            http_get(
                url,
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.path,
                tqdm_class=in_lines(file.path),
            )
            stream.flush()
            os.fsync(stream.fileno())
        if is_whole(partial, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)
            return
    partial.unlink()
    raise MsekitError(
        f"{file.path} arrived damaged: its checksum is not {file.digest}", where=repo.name, fix="Try again."
    )


def fetch_file(url: str, target: Path, sha256: str, otherwise: str) -> None:
    """Load a file from an address outside the hub; it is in its place once its checksum is right.

    Args:
        url: Its address.
        target: Where it goes; a file there stays.
        sha256: Its checksum.
        otherwise: How to do without: "Or give …".

    Raises:
        MsekitError: It cannot be fetched, or is another file.
    """
    from filelock import FileLock
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.is_file():
            return
        try:
            with partial.open("wb") as stream:
                http_get(url, stream, displayed_filename=target.name, tqdm_class=in_lines(target.name))
        except OfflineModeIsEnabled as error:
            reason = f"{target.name}: the network is switched off by HF_HUB_OFFLINE"
            raise MsekitError(reason, where=url, fix=otherwise) from error
        except (HfHubHTTPError, HTTPError, OSError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise MsekitError(f"{target.name} could not be fetched: {reason}", where=url, fix=otherwise) from error
        if (digest := hashlib.sha256(partial.read_bytes()).hexdigest()) != sha256:
            partial.unlink()
            raise MsekitError(f"{target.name} arrived damaged: its sha256 is {digest}", where=url, fix="Try again.")
        os.replace(partial, target)


def in_lines(name: str) -> Any:
    """The class of a download's bar: None for huggingface_hub's own on a terminal, else one that writes lines."""
    if sys.stderr.isatty():
        return None
    from huggingface_hub.utils import tqdm
    from rich.filesize import decimal

    class InLines(tqdm):
        """A line a minute."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            total, start = int(named.get("total") or 0), int(named.get("initial") or 0)
            self.lines = Lines(Reporter().note, f"fetching {name}", total, start, decimal)
            super().__init__(*arguments, **named | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.lines.advance(int(n or 0))
            return None

    return InLines


def no_bar() -> Any:
    """The class of the bar over a repository's files: None for huggingface_hub's own on a terminal, else one unseen."""
    if sys.stderr.isatty():
        return None
    from huggingface_hub.utils import tqdm

    class NoBar(tqdm):
        """Never drawn: a file has no place for a line that moves."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named | {"disable": True})

    return NoBar


def is_whole(path: Path, file: HubFile) -> bool:
    """Whether a local file has the size and the checksum of the repository's."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    large = len(file.digest) == 64
    digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(4 << 20):
            digest.update(block)
    return digest.hexdigest() == file.digest


@contextmanager
def explained(repo: HubRepo, what: str, otherwise: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into MsekitErrors of one line.

    Args:
        repo: The repository in use.
        what: What it holds, in the user's words: "the model", "the features of 'mosei'".
        otherwise: How to do without the hub: "Or give …".
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    noun = _NOUNS[repo.kind]
    try:
        yield
    except GatedRepoError as error:
        fix = f"Accept it on its hub page, then run `hf auth login` or set HF_TOKEN, and try again. {otherwise}"
        raise MsekitError(f"{what}: gated, its licence must be accepted first", where=repo.name, fix=fix) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise MsekitError(f"no such {noun} on the hub, or a private one", where=repo.name, fix=otherwise) from error
    except RevisionNotFoundError as error:
        raise MsekitError(
            f"no revision '{repo.revision}' of the {noun} on the hub", where=repo.name, fix=otherwise
        ) from error
    except OfflineModeIsEnabled as error:
        reason = f"{what}: not on this machine, and the hub is switched off by HF_HUB_OFFLINE"
        raise MsekitError(reason, where=repo.name, fix=otherwise) from error
    except HfHubHTTPError as error:
        reason = f"{error.response.status_code} {error.response.reason_phrase}".strip()
        fix = f"Try again later: what has arrived is kept. {otherwise}"
        raise MsekitError(f"{what}: the hub answers {reason}", where=repo.name, fix=fix) from error
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        fix = f"The same command goes on where it stopped. {otherwise}"
        raise MsekitError(
            f"{what}: not on this machine, and the download failed: {reason}", where=repo.name, fix=fix
        ) from error
