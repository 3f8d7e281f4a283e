"""Tables of frames as CSV, as the field's extractors write them: OpenFace, py-feat, openSMILE, or plain columns of
numbers.

What says where a frame came from (file, time, face) is left out. A frame that the extractor itself did not trust is a
row of NaN, as a picture without a face is everywhere here: OpenFace's with `success` 0 or `confidence` under .75,
py-feat's with `FaceScore` under .75. Of several faces in a picture the largest is taken, where boxes are there to tell.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msekit.errors import MsekitError

LEAST_CONFIDENCE = 0.75
"""Below it an extractor counts as not having found the face."""
_BOX = ("facerectwidth", "facerectheight")
_CONFIDENCE = ("confidence", "facescore")
_ABOUT = {
    *("", "frame", "face_id", "timestamp", "success", "input", "identity", "approx_time", "filename", "name"),
    *("frameindex", "frametime", "file", "start", "end", "facerectx", "facerecty", *_BOX, *_CONFIDENCE),
}
"""Columns that say where a frame came from, in small letters."""
_LONGEST_CELL = 1000


def read_feature_table(path: Path, key: str, most: int) -> np.ndarray:
    """A CSV's frames: (L, D) float32.

    Args:
        path: The file; commas, semicolons or tabs stand between cells. Without a line of names all columns are read.
        key: `audio` or `vision`, for messages.
        most: Values that it may have.

    Raises:
        MsekitError: No frames, a cell that is no number, lines of different lengths, or too many values.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(1 << 20)
        mark = max(",;\t", key=first.count)
        file.seek(0)
        lines = csv.reader(file, delimiter=mark)
        names = [name.strip().lower() for name in next(lines, [])]
        if names and all(_is_number(name) for name in names):
            file.seek(0)
            lines, names = csv.reader(file, delimiter=mark), [f"column {place + 1}" for place in range(len(names))]
        kept = [place for place, name in enumerate(names) if name not in _ABOUT]
        if not kept:
            raise MsekitError(f"the {key} table has no columns of features")
        rows = [row for row, _ in _one_face(_frames(lines, names, kept, most), names)]
    if not rows:
        raise MsekitError(f"the {key} table has no frames")
    return np.stack(rows)


def _frames(
    lines: Iterator[list[str]], names: list[str], kept: list[int], most: int
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Each line's features, NaN where the extractor did not trust them, and the line."""
    trust = [place for place, name in enumerate(names) if name in _CONFIDENCE]
    success = names.index("success") if "success" in names else None
    for number, line in enumerate(lines, start=1):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) != len(names):
            raise MsekitError(f"frame {number} has {len(line)} cells, the first line {len(names)}")
        if number * len(kept) > most:
            raise MsekitError(f"more than {most:,} values")
        row_D = np.array([_number(line[place], number, names[place]) for place in kept], np.float32)
        doubted = any(not _number(line[place], number, names[place]) >= LEAST_CONFIDENCE for place in trust)
        if doubted or (success is not None and not _number(line[success], number, "success")):
            row_D[:] = np.nan
        yield row_D, line


def _one_face(
    frames: Iterator[tuple[np.ndarray, list[str]]], names: list[str]
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """One line a picture: the largest face's.

    Raises:
        MsekitError: Several faces in a picture, and nothing says how large they are.
    """
    if "frame" not in names:
        yield from frames
        return
    picture, boxes = names.index("frame"), [names.index(name) for name in _BOX if name in names]

    def size(line: list[str]) -> float:
        return float(np.prod([_number(line[place], 0, "box") for place in boxes]))

    best: tuple[np.ndarray, list[str]] | None = None
    for row_D, line in frames:
        if best is not None and line[picture] == best[1][picture]:
            if len(boxes) < len(_BOX):
                raise MsekitError(f"picture {line[picture]} has several faces", fix="Keep one face's lines.")
            best = (row_D, line) if size(line) > size(best[1]) else best
            continue
        if best is not None:
            yield best
        best = (row_D, line)
    if best is not None:
        yield best


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, frame: int, name: str) -> float:
    cell = cell.strip()
    if not cell:
        return float("nan")
    if len(cell) > _LONGEST_CELL or not _is_number(cell):
        raise MsekitError(f"frame {frame}: '{cell[:40]}' in '{name[:40]}' is no number", fix="Leave that column out.")
    return float(cell)
