"""Processed features from the hub: found in their repository, downloaded, compared with its checksums, kept.

They lie in `<cache>/downloads/<owner>--<repository>/<commit>/`, under the names that the catalogue expects. What is
there is used without asking the hub. A download that was interrupted goes on where it stopped (see `msekit.downloads`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

from filelock import FileLock

from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.downloads import HubRepo, download, explained, is_whole, listing
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.reporter import Reporter

_RECORD = "features.json"


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
    folder, repo = _folder(spec), HubRepo(spec.hub, "dataset", spec.hub_revision)
    give = "Or give the features with --source PATH."
    with explained(repo, f"the features of '{spec.name}'", give):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            commit, found = listing(repo)
            files = {name: found[path] for name, path in _located(spec, list(found)).items()}
            missing = {name: file for name, file in files.items() if not is_whole(folder / commit / name, file)}
            if missing:
                volume = sum(file.size for file in missing.values()) / 1e6
                files_text = "1 file" if len(missing) == 1 else f"{len(missing)} files"
                reporter.note(f"downloading {files_text} ({volume:,.1f} MB) of {spec.name} from {spec.hub}")
            for name, file in missing.items():
                download(repo, commit, file, folder / f"{file.digest}.partial", folder / commit / name)
            sizes = {name: file.size for name, file in files.items()}
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
