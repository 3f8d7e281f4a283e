"""Hidden states of texts on disk: a folder of Arrow files, memory-mapped, built in parts that a stopped build keeps.

`<cache root>/states/<key>/` has parts of `PART` texts and `info.json`. It is built in a folder beside it, under a lock,
and renamed into place, so it is there whole or not at all. A part is written under another name and then renamed to one
with its checksum: a later build takes the parts that are whole and makes the others. Checksums are compared whenever
states are opened; where one differs, that part alone is made again.

An LLM in fp32 has its states stored as float32. Those of one in 16 bit or less are stored as float16 of the vector over
its root mean square, which lies beside it in float32: states of some LLMs are beyond float16's range.

Shapes: N texts, L layers, d width.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from msekit.data.cache.mapped import MappedFile
from msekit.data.cache.write_split import crc32

STATES_FORMAT = 2
"""Raised whenever the files' layout or meaning changes; part of the key."""
PART = 256
"""Texts of a part; the last one may have fewer."""
_LEFT_ALONE_S = 7 * 86400.0  # a stopped build is gone on with for so long
KINDS = 2
"""Vectors of a text and layer: of its last token, and the mean over it and its cue."""


class StatesInfo(BaseModel):
    """The record `info.json`: what the states are of."""

    format: int
    backbone: str
    """As the user called it who built them."""
    precision: str
    layers: list[int]
    width: int
    texts: int
    parts: list[str]
    """Names of the files, each with its checksum."""
    checksum: int = 0
    """crc32 of this record written with checksum 0."""

    def sealed(self) -> StatesInfo:
        """The same record with its checksum."""
        blank = self.model_copy(update={"checksum": 0})
        return self.model_copy(update={"checksum": zlib.crc32(blank.model_dump_json().encode())})


class StoredStates:
    """Opened states; rows are numbered over all parts.

    Args:
        path: Their folder.
        info: Its checked record.
    """

    def __init__(self, path: Path, info: StatesInfo) -> None:
        self.info = info
        self._parts = [_read(path / name) for name in info.parts]
        self._files = [MappedFile(path / name) for name in info.parts]

    def rows(self, places: np.ndarray) -> np.ndarray:
        """States of the texts at these places: (n, L, 2, d) float32.

        Raises:
            MsekitError: A file was cut short since it was opened.
        """
        for part in np.unique(places // PART).tolist():
            self._files[part].refuse_cut()
        states = np.empty((len(places), len(self.info.layers) * KINDS, self.info.width), np.float32)
        for row, place in zip(states, places.tolist(), strict=True):
            values, scales = self._parts[place // PART]
            row[:] = values[place % PART].reshape(row.shape)
            if scales is not None:
                row *= scales[place % PART][:, None]
        return states.reshape(len(places), len(self.info.layers), KINDS, self.info.width)


class StatesFolder:
    """Where the states of some texts lie or will lie.

    Args:
        root: Folder of all states.
        key: Names the states: everything that decides them.
        texts: N.
        exact: Whether values are stored as float32.
    """

    def __init__(self, root: Path, key: str, texts: int, exact: bool) -> None:
        self.path, self.texts, self.exact = root / key, texts, exact
        self._building = root / f".{key}.build"
        self.lock = FileLock(root / f".{key}.lock")
        """Held by whoever builds."""

    @property
    def parts(self) -> int:
        """How many parts it takes."""
        return -(-self.texts // PART)

    def open(self) -> StoredStates | None:
        """The states if they are there and every file is as it was written, else None."""
        try:
            info = StatesInfo.model_validate_json((self.path / "info.json").read_bytes())
            whole = info == info.sealed() and info.format == STATES_FORMAT and info.texts == self.texts
            if not whole or not all(_is_whole(self.path / name) for name in info.parts):
                return None
        except (OSError, ValidationError):
            return None
        return StoredStates(self.path, info)

    def begin(self) -> list[int]:
        """Begin or go on with a build; the caller has the lock.

        Returns:
            The parts that must still be written.
        """
        self._building.parent.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        if self.path.exists():  # damaged: what is whole of it is used again
            shutil.rmtree(self._building, ignore_errors=True)
            self.path.rename(self._building)
        self._building.mkdir(exist_ok=True)
        for file in self._building.iterdir():
            if not (file.name.startswith("part-") and _is_whole(file)):
                file.unlink()
        return [part for part in range(self.parts) if not list(self._building.glob(f"part-{part:05d}-*"))]

    def _remove_leftovers(self) -> None:
        """Delete builds that were stopped long ago, and whose lock is free."""
        for leftover in self.path.parent.glob(".*.build"):
            stopped_s = time.time() - leftover.stat().st_mtime
            if leftover == self._building or stopped_s < _LEFT_ALONE_S:
                continue
            with contextlib.suppress(Timeout), FileLock(leftover.with_suffix(".lock"), timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)

    def write(self, part: int, states_NL2d: np.ndarray) -> None:
        """Write a part, at once or not at all; the caller has the lock."""
        import pyarrow as pa

        table = pa.table(_columns(states_NL2d, self.exact))
        file = self._building / f"new-{part:05d}"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.rename(self._building / f"part-{part:05d}-{crc32(file):08x}.arrow")

    def finish(self, backbone: str, precision: str, layers: tuple[int, ...]) -> None:
        """Put the whole folder into place; the caller has the lock."""
        parts = sorted(file.name for file in self._building.glob("part-*"))
        values, _ = _read(self._building / parts[0])
        info = StatesInfo(
            format=STATES_FORMAT,
            backbone=backbone,
            precision=precision,
            layers=list(layers),
            width=values.shape[1] // (len(layers) * KINDS),
            texts=self.texts,
            parts=parts,
        )
        (self._building / "info.json").write_text(info.sealed().model_dump_json(indent=1), encoding="utf-8")
        self._building.rename(self.path)


def _is_whole(file: Path) -> bool:
    return file.is_file() and file.name.endswith(f"-{crc32(file):08x}.arrow")


def _columns(states_NL2d: np.ndarray, exact: bool) -> dict[str, Any]:
    import pyarrow as pa

    vectors_NVd = states_NL2d.reshape(len(states_NL2d), -1, states_NL2d.shape[-1])
    if exact:
        return {"values": _lists(pa, vectors_NVd.reshape(len(vectors_NVd), -1))}
    scales_NV = np.sqrt(np.square(vectors_NVd, dtype=np.float64).mean(axis=2))
    even_NVd = vectors_NVd / np.where(scales_NV > 0, scales_NV, 1.0)[..., None]
    return {
        "values": _lists(pa, even_NVd.astype(np.float16).reshape(len(even_NVd), -1)),
        "scales": _lists(pa, scales_NV.astype(np.float32)),
    }


def _lists(pa: Any, rows_NW: np.ndarray) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows_NW).reshape(-1)), rows_NW.shape[1])


def _read(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (n, L·2·d) and scales (n, L·2) of a part, views into the file."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_file(source).read_all()

    def view(name: str) -> np.ndarray:
        (chunk,) = table.column(name).chunks
        return chunk.values.to_numpy(zero_copy_only=True).reshape(len(chunk), -1)

    return view("values"), view("scales") if "scales" in table.column_names else None
