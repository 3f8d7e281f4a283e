"""Processed features from the hub: found in their repository, downloaded, compared with its checksums, kept.

They lie in `<cache>/downloads/<owner>--<repository>/<commit>/`, under the names that the catalogue expects. What is
there is used without asking the hub. A download that was interrupted, even by a kill, goes on where it stopped: the
unfinished file is named by the checksum of what it will be, and the rest is asked for by a Range request.
(huggingface_hub's own downloads begin anew in another process.)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.reporter import Reporter

_SECONDS = 10.0  # to wait for the hub's list of files before it counts as unreachable
_RECORD = "features.json"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    name: str
    """As the catalogue expects it."""
    path: str
    """In the repository."""
    size: int
    """Bytes."""
    digest: str
    """sha256 of a large file, git's blob id (sha1) of a small one; hexadecimal."""


def with_features(spec: DatasetSpec, reporter: Reporter) -> DatasetSpec:
    """The data set with a place for its features: the given one, else what was downloaded, else the hub's.

    Raises:
        MsekitError: See `fetch`.
    """
    if spec.source is not None or spec.hub is None:
        return spec
    here = downloaded(spec)
    return spec.model_copy(update={"source": here if here is not None else fetch(spec, reporter)})


def downloaded(spec: DatasetSpec) -> Path | None:
    """The folder of a complete download of the wanted revision, if there is one; the hub is not asked."""
    folder = _folder(spec)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        here = folder / record["commit"]
        sizes = {name: (here / name).stat().st_size for name in record["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    asked = spec.hub_revision in (None, record["commit"], record.get("revision"))
    return here if asked and sizes == record["sizes"] and set(sizes) == set(_names(spec)) else None


def fetch(spec: DatasetSpec, reporter: Reporter) -> Path:
    """Bring a data set's features here; what is here and undamaged is not loaded again. Safe from many processes.

    Args:
        spec: The data set, with its repository and, where it is known, its revision.
        reporter: Where notices go; the progress bar is huggingface_hub's.

    Returns:
        The folder that holds the files.

    Raises:
        MsekitError: There is no repository, or it is gated, lacks the files, or cannot be reached; the download was
            interrupted or damaged; the disk is full.
    """
    if spec.hub is None or spec.layout not in ("msa-pickle", "erc-pickle"):
        raise MsekitError(f"data set '{spec.name}' has no features on the hub", fix="Give them with --source PATH.")
    folder = _folder(spec)
    with _explained(spec):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            commit, files = _listing(spec)
            missing = [file for file in files if not _is_whole(folder / commit / file.name, file)]
            if missing:
                volume = sum(file.size for file in missing) / 1e6
                files_text = "1 file" if len(missing) == 1 else f"{len(missing)} files"
                reporter.note(f"downloading {files_text} ({volume:,.1f} MB) of {spec.name} from {spec.hub}")
            for file in missing:
                _download(spec, commit, file, folder)
            sizes = {file.name: file.size for file in files}
            record = {"revision": spec.hub_revision, "commit": commit, "sizes": sizes}
            partial = folder / f".{_RECORD}.{os.getpid()}"
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            partial.replace(folder / _RECORD)
    return folder / commit


def _folder(spec: DatasetSpec) -> Path:
    return cache_root() / "downloads" / str(spec.hub).replace("/", "--")


def _names(spec: DatasetSpec) -> list[str]:
    """The files that the data set's layout needs."""
    if spec.layout == "msa-pickle":
        return [spec.files or f"{spec.name}.pkl"]
    return [f"{spec.files or spec.name}_{split}.pkl" for split in SPLITS]


def _listing(spec: DatasetSpec) -> tuple[str, list[HubFile]]:
    """The commit, and the wanted files in it."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(str(spec.hub), revision=spec.hub_revision, timeout=_SECONDS, files_metadata=True)
    found = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files = []
    for name, path in _located(spec, list(found)).items():
        lfs: Any = found[path].lfs
        size = lfs.size if lfs else found[path].size
        files.append(HubFile(name, path, int(size or 0), str(lfs.sha256 if lfs else found[path].blob_id)))
    for checksum in (str(info.sha), *(file.digest for file in files)):
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", checksum):  # they become names of files here
            raise MsekitError(f"the hub gives '{checksum}' for a checksum", where=spec.hub)
    return str(info.sha), files


def _located(spec: DatasetSpec, paths: list[str]) -> dict[str, str]:
    """Expected name → path in the repository: the file of that name, else the only pickle that can be meant."""
    pickles = [path for path in paths if PurePosixPath(path).suffix in (".pkl", ".pickle")]
    endings = [""] if spec.layout == "msa-pickle" else list(SPLITS)
    located = {}
    for name, ending in zip(_names(spec), endings, strict=True):
        named = [path for path in paths if PurePosixPath(path).name == name]
        likely = [path for path in pickles if PurePosixPath(path).stem.lower().endswith(ending)]
        candidates = named or likely
        if len(candidates) != 1:
            listed = ", ".join(sorted(paths)[:12]) or "nothing"
            state = f"holds {len(candidates)} files that could be" if candidates else "has no"
            raise MsekitError(
                f"the repository {state} '{name}'", where=spec.hub, fix=f"It holds: {listed}. Or give --source PATH."
            )
        located[name] = candidates[0]
    return located


def _download(spec: DatasetSpec, commit: str, file: HubFile, folder: Path) -> None:
    """Load one file, going on where an earlier try stopped; put in place only when its checksum is right."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial, target = folder / f"{file.digest}.partial", folder / commit / file.name
    url = hf_hub_url(str(spec.hub), file.path, repo_type="dataset", revision=commit)
    started = partial.stat().st_size if partial.is_file() else 0
    free = shutil.disk_usage(folder).free
    if free < file.size - started:
        raise MsekitError(
            f"{file.name} needs {(file.size - started) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=folder,
            fix="Free some space, or set MSEKIT_CACHE to another disk.",
        )
    for kept in [started, 0] if started else [0]:  # what was kept may be damaged: then once more from the start
        with partial.open("ab") as stream:
            stream.truncate(kept if kept <= file.size else 0)
            stream.seek(0, os.SEEK_END)
            http_get(
                url,
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
        if _is_whole(partial, file):
            target.parent.mkdir(exist_ok=True)
            partial.replace(target)
            return
    partial.unlink()
    raise MsekitError(
        f"{file.name} arrived damaged: its checksum is not {file.digest}", where=spec.hub, fix="Try again."
    )


def _is_whole(path: Path, file: HubFile) -> bool:
    """Whether a file here has the size and the checksum of the repository's."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    large = len(file.digest) == 64
    digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(4 << 20):
            digest.update(block)
    return digest.hexdigest() == file.digest


@contextmanager
def _explained(spec: DatasetSpec) -> Iterator[None]:
    """huggingface_hub's errors as one line each."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    give = "Or give the features with --source PATH."
    try:
        yield
    except GatedRepoError as error:
        fix = f"Accept its terms on its hub page, then `hf auth login`. {give}"
        raise MsekitError(f"the features of '{spec.name}' are gated", where=spec.hub, fix=fix) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise MsekitError("no such data set on the hub, or a private one", where=spec.hub, fix=give) from error
    except RevisionNotFoundError as error:
        raise MsekitError(f"no revision '{spec.hub_revision}' on the hub", where=spec.hub, fix=give) from error
    except OfflineModeIsEnabled as error:
        what = f"data set '{spec.name}' needs its feature files, and the hub is switched off by HF_HUB_OFFLINE"
        raise MsekitError(what, where=spec.hub, fix="Say where they lie with --source PATH.") from error
    except HfHubHTTPError as error:
        reason = f"{error.response.status_code} {error.response.reason_phrase}".strip()
        fix = f"Try again later: what has arrived is kept. {give}"
        raise MsekitError(f"the hub answers {reason}", where=spec.hub, fix=fix) from error
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        fix = f"The same command goes on where it stopped. {give}"
        raise MsekitError(
            f"data set '{spec.name}' needs its feature files, and the download failed: {reason}",
            where=spec.hub,
            fix=fix,
        ) from error
