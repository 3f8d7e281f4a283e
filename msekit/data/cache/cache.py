"""Rows ⇄ Arrow cache: features unpadded and memory-mapped, statistics of the train split beside them.

A cache is a folder `<root>/datasets/<name>-<fingerprint>/` with one Arrow file per split and `info.json`. It is
built in a sibling folder under a lock and renamed into place, so it is there whole or not at all; its checksums are
compared whenever it is opened, and a damaged one is built again. Root: MSEKIT_CACHE, or ~/.cache/msekit.

Non-finite feature values are stored as NaN, counted, and left out of the statistics; `batches/preprocess.py` puts the
mean (0 after standardisation) or 0 in their place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import zlib
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from msekit.data.cache.digests import MEMO, digests_of
from msekit.data.cache.known_files import remarks_on_files
from msekit.data.cache.split_table import CacheSettings, ModalityInfo, SplitInfo, SplitTable
from msekit.data.cache.write_split import Gathered, RowCallback, crc32, write_split
from msekit.data.catalogue import SPLITS, DatasetSpec, Task
from msekit.data.readers import synthetic
from msekit.data.readers.labels import numeric_names
from msekit.data.readers.open_source import open_source
from msekit.data.readers.rows import RowSource
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.words import reason

CACHE_FORMAT = 1
"""Raised whenever the files' layout or meaning changes; part of the fingerprint."""


class CacheInfo(BaseModel):
    """The record `info.json` of a cache: what it holds, without opening its Arrow files."""

    name: str
    task: Task
    fingerprint: str
    """sha256 over the sources' contents, what decides how they are read, the settings and the format."""
    format: int
    """CACHE_FORMAT of the program that wrote it."""
    settings: CacheSettings
    splits: dict[str, SplitInfo]
    audio: ModalityInfo
    vision: ModalityInfo
    warnings: list[str]
    checksum: int = 0
    """crc32 of this record written with checksum 0."""

    def sealed(self) -> CacheInfo:
        """The same record with its checksum."""
        blank = self.model_copy(update={"checksum": 0})
        return self.model_copy(update={"checksum": zlib.crc32(blank.model_dump_json().encode())})


class Cache:
    """An opened cache.

    Args:
        path: Its folder.
        info: Its checked `info.json`.
    """

    def __init__(self, path: Path, info: CacheInfo) -> None:
        self.path, self.info = path, info
        self._tables: dict[str, SplitTable] = {}

    def split(self, name: str) -> SplitTable:
        """One split; opened once.

        Raises:
            MsekitError: No such split.
        """
        if name not in self.info.splits:
            raise MsekitError(f"no such split '{name}'", where=self.path, fix=f"Known: {', '.join(SPLITS)}")
        if name not in self._tables:
            self._tables[name] = SplitTable(
                self.path / f"{name}.arrow", name, self.info.audio.width, self.info.vision.width
            )
        return self._tables[name]


def prepare(
    spec: DatasetSpec,
    settings: CacheSettings = CacheSettings(),  # noqa: B008 - immutable
    root: Path | None = None,
    progress: RowCallback | None = None,
) -> Cache:
    """Open the cache of a data set; build it first if it is absent or damaged. Safe to call from many processes.

    Args:
        spec: The data set and where its files lie.
        settings: How features are stored.
        root: Cache root; None for the user's.
        progress: Called after every row that is written.

    Returns:
        The cache; its `info.warnings` say what differs from what `spec` expects.

    Raises:
        MsekitError: The published files are missing or wrong, or the cache cannot be written.
    """
    source, fingerprint, path = _place(spec, settings, root)
    folder, info = path.parent, _checked(path, fingerprint)
    if info is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f".{path.name}.lock"):
                info = _checked(path, fingerprint)  # another process may have built it meanwhile
                if info is None:
                    _remove_leftovers(folder, path.name)
                    info = _build(spec, settings, fingerprint, source, path, progress)
        except OSError as error:
            raise MsekitError(
                f"the cache cannot be written: {reason(error)}",
                where=path,
                fix="Free some space there, or set MSEKIT_CACHE to a folder that can be written",
            ) from error
    _check_widths(spec, info)
    unknown = remarks_on_files(spec, source.source_files, folder / MEMO)
    warnings = list(dict.fromkeys([*info.warnings, *_size_warnings(spec, info), *unknown]))
    return Cache(path, info.model_copy(update={"warnings": warnings}))


def is_prepared(spec: DatasetSpec, settings: CacheSettings, root: Path | None = None) -> bool:
    """Whether the cache of a data set is there and undamaged.

    Raises:
        MsekitError: The published files are missing.
    """
    _, fingerprint, path = _place(spec, settings, root)
    return _checked(path, fingerprint) is not None


def fingerprint_of(spec: DatasetSpec, settings: CacheSettings = CacheSettings()) -> str:  # noqa: B008 - immutable
    """What decides a data set's rows, as 64 hex digits: equal for equal files, wherever they lie.

    Raises:
        MsekitError: The published files are missing.
    """
    return _place(spec, settings, None)[1]


def _place(spec: DatasetSpec, settings: CacheSettings, root: Path | None) -> tuple[RowSource, str, Path]:
    """The rows of a data set, its fingerprint and its cache's folder."""
    folder = (root if root is not None else cache_root()) / "datasets"
    source = open_source(spec)
    fingerprint = _fingerprint(spec, settings, source, folder)
    return source, fingerprint, folder / f"{_safe_name(spec.name)}-{fingerprint[:16]}"


def open_cache(path: Path) -> Cache:
    """Open a cache by its folder, comparing its checksums.

    Raises:
        MsekitError: It is not a cache, is damaged, or was written by another version.
    """
    info = _checked(Path(path), None)
    if info is None:
        raise MsekitError(
            "no cache, a damaged one, or one of another version",
            where=path,
            fix="Build it again: msekit data prepare NAME --source PATH",
        )
    return Cache(Path(path), info)


def _safe_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name) or "_"


def _checked(path: Path, fingerprint: str | None) -> CacheInfo | None:
    """The cache's record if every file is as it was written, else None."""
    try:
        info = CacheInfo.model_validate_json((path / "info.json").read_bytes())
        if info != info.sealed() or info.format != CACHE_FORMAT or set(info.splits) != set(SPLITS):
            return None
        if fingerprint is not None and info.fingerprint != fingerprint:
            return None
        for name, split in info.splits.items():
            file = path / f"{name}.arrow"
            if file.stat().st_size != split.bytes or crc32(file) != split.crc32:
                return None
    except (OSError, ValidationError):
        return None
    return info


def _fingerprint(spec: DatasetSpec, settings: CacheSettings, source: RowSource, folder: Path) -> str:
    """sha256, in hex, of everything that decides the rows and the warnings about them."""
    files = source.source_files
    decides = {
        "format": CACHE_FORMAT,
        "settings": settings.model_dump(),
        "task": spec.task,
        "layout": spec.layout,
        "labels": spec.labels,
        "aliases": sorted(spec.aliases.items()),
        "range": spec.range,
        "sources": digests_of(files, folder / MEMO),
        "generator": [spec.name, synthetic.VERSION] if spec.layout == "synthetic" else None,
    }
    if spec.layout == "folder":  # a feature file belongs to a sample by its name
        decides["names"] = [path.relative_to(files[0].parent).as_posix() for path in files]
    # what most sets do not have is added where it is, so that their fingerprints are those of earlier versions
    if source.bystanders:
        decides["bystanders"] = [path.relative_to(files[0].parent).as_posix() for path in source.bystanders]
    table = {key: value for key in ("encoding", "delimiter", "columns", "validation") if (value := getattr(spec, key))}
    if spec.folds is not None:
        table["folds"] = [spec.folds.model_dump(), spec.fold or 1]
    if table:
        decides["table"] = table
    if spec.targets:
        decides["targets"] = [[name, target.decides_rows()] for name, target in spec.targets.items()]
    if numeric_names(spec.labels or ()):
        decides["numbers"] = "are names"
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _remove_leftovers(folder: Path, own: str) -> None:
    """Delete what killed builds left behind: all of `own`, whose lock the caller has, and others whose lock is free."""
    for memo in folder.glob(".hashes.json.*"):
        memo.unlink(missing_ok=True)  # a process that writes it now loses a saving of time and nothing else
    for leftover in folder.glob(".*.build-*"):
        name = leftover.name[1:].rpartition(".build-")[0]
        if name == own:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        with contextlib.suppress(Timeout), FileLock(folder / f".{name}.lock", timeout=0):
            shutil.rmtree(leftover, ignore_errors=True)


def _build(
    spec: DatasetSpec,
    settings: CacheSettings,
    fingerprint: str,
    source: RowSource,
    path: Path,
    progress: RowCallback | None,
) -> CacheInfo:
    """Write a whole cache beside `path` and rename it into place; the caller has its lock."""
    building = path.with_name(f".{path.name}.build-{os.getpid()}-{time.time_ns()}")
    building.mkdir()
    try:
        gathered = Gathered(settings.dtype)
        splits = {
            split: write_split(spec, source.rows(split), split, building / f"{split}.arrow", gathered, progress)
            for split in SPLITS
        }
        unread = source.unread()
        if unread.error is not None:
            raise unread.error
        warnings = [*gathered.warnings, *unread.warnings]
        for modality in (gathered.audio, gathered.vision):
            warnings += modality.remarks()
        info = CacheInfo(
            name=spec.name,
            task=spec.task,
            fingerprint=fingerprint,
            format=CACHE_FORMAT,
            settings=settings,
            splits=splits,
            audio=gathered.audio.info(),
            vision=gathered.vision.info(),
            warnings=warnings,
        )
        _check_widths(spec, info)
        info.warnings += _size_warnings(spec, info)
        info = info.sealed()
        (building / "info.json").write_text(info.model_dump_json(indent=1), encoding="utf-8")
        if path.exists():
            path.rename(building.with_name(f"{building.name}-damaged"))
        building.rename(path)
        return info
    finally:
        for leftover in path.parent.glob(f"{building.name}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_widths(spec: DatasetSpec, info: CacheInfo) -> None:
    """Refuse a set whose widths are not those that `spec` expects."""
    for key, expected, width in (
        ("audio", spec.audio_width, info.audio.width),
        ("vision", spec.vision_width, info.vision.width),
    ):
        if expected is not None and expected != width:
            raise MsekitError(
                f"{key} has {width or 'no'} features per frame, '{spec.name}' has {expected}",
                where=spec.source,
                fix="This is another feature file: get the right one, or describe this one in a YAML of its own",
            )


def _size_warnings(spec: DatasetSpec, info: CacheInfo) -> list[str]:
    expected = zip(SPLITS, spec.split_sizes or (), strict=False)
    return [
        f"{split} has {info.splits[split].samples} samples, '{spec.name}' as published has {size}"
        for split, size in expected
        if info.splits[split].samples != size
    ]
