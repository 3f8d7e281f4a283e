"""Processed features from the hub: `fetch` downloads a data set's files, compares their checksums and keeps them.

They lie in `<cache>/downloads/<owner>--<repository>/<commit>/`, under the names that their layout expects. What is
there is used without asking the hub. A download that was interrupted goes on where it stopped (`msekit/downloads.py`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

from filelock import FileLock

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.open_source import LAYOUTS
from msekit.downloads import HubRepo, download, explained, is_whole, listing
from msekit.errors import MsekitError
from msekit.json_file import read_json
from msekit.paths import cache_root
from msekit.reporter import Reporter

_RECORD = "features.json"


def with_features(spec: DatasetSpec, reporter: Reporter) -> DatasetSpec:
    """The data set with a place for its features: its own source, else an earlier download, else a new one.

    Raises:
        MsekitError: The features cannot be downloaded; `fetch` lists why.
    """
    if spec.source is not None or spec.hub is None:
        return spec
    here = downloaded(spec)
    return spec.model_copy(update={"source": here if here is not None else fetch(spec, reporter)})


def downloaded(spec: DatasetSpec) -> Path | None:
    """The folder of a complete download of the wanted revision; None without one. The hub is not asked."""
    folder = _folder(spec)
    try:
        record = read_json(folder / _RECORD)
        here = folder / record["commit"]
        sizes = {name: (here / name).stat().st_size for name in record["sizes"]}
    except (MsekitError, OSError, ValueError, KeyError, TypeError):
        return None
    wanted = spec.hub_revision in (None, record["commit"], record.get("revision"))
    return here if wanted and sizes == record["sizes"] and set(sizes) == set(_endings(spec)) else None


def fetch(spec: DatasetSpec, reporter: Reporter) -> Path:
    """Download a data set's features; a file that is here and whole is not loaded again. Safe from many processes.

    Args:
        spec: The data set with its repository; without a revision, the newest is taken.
        reporter: Where notices go; the progress bar is huggingface_hub's.

    Returns:
        The folder that holds the files.

    Raises:
        MsekitError: There is no repository, or it is gated, lacks the files, or cannot be reached; the download was
            interrupted or damaged; the disk is full.
    """
    if spec.hub is None or LAYOUTS[spec.layout].files is None:
        raise MsekitError(f"data set '{spec.name}' has no features on the hub", fix="Give them with --source PATH.")
    folder, repo = _folder(spec), HubRepo(spec.hub, "dataset", spec.hub_revision)
    give = "Or give the features with --source PATH."
    with explained(repo, f"the features of '{spec.name}'", give):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            commit, listed = listing(repo)
            files = {name: listed[path] for name, path in _located(spec, list(listed)).items()}
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


def _endings(spec: DatasetSpec) -> dict[str, str]:
    """Name of each file that the data set needs → how the stem of a file that is named otherwise ends: its split."""
    files = LAYOUTS[spec.layout].files
    by_split = {} if files is None else files(spec)
    one_file = len(set(by_split.values())) == 1
    return {name: "" if one_file else split for split, name in by_split.items()}


def _located(spec: DatasetSpec, paths: list[str]) -> dict[str, str]:
    """Expected name → path in the repository: the file of that name, else the only pickle that can be meant."""
    pickles = [path for path in paths if PurePosixPath(path).suffix in (".pkl", ".pickle")]
    located = {}
    for name, ending in _endings(spec).items():
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
