"""MERTools' layout → a folder of one's own: `label.npz`, transcripts as CSV, and a folder of `<name>.npy` a feature.

    label.npz            train_corpus, test1_corpus, … : name → {"emo": "happy", "val": 0.5}
    <features>/<name>.npy

Nothing is executed: the dictionaries of `label.npz` are pickles, and are read as the kit reads every pickle.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from msekit.data.readers.own_tables import check_header
from msekit.data.readers.unpickle import map_pickle
from msekit.errors import MsekitError

_TRAIN = "train_corpus"
_MOST_BYTES = 256 << 20
_VALIDATION = 0.1
_TEXTS = ("english", "chinese", "text", "sentence")


def read_labels(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Corpus → name → what is said of it.

    Raises:
        MsekitError: The file is no such archive, or holds anything but dictionaries of texts and numbers.
    """
    corpora = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.file_size > _MOST_BYTES or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise MsekitError(
                        f"'{info.filename[:60]}' is too large, or not packed as numpy does it", where=path
                    )
                with archive.open(info) as member:
                    np.lib.format.read_magic(member)
                    np.lib.format.read_array_header_1_0(member)
                    pickled = member.read(_MOST_BYTES)
                corpora[info.filename.removesuffix(".npy")] = _mapping(pickled, path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise MsekitError(f"the labels cannot be read: {error}", where=path) from error
    return corpora


def write_own_folder(
    labels: Path,
    features: Mapping[str, Path],
    output: Path,
    *,
    transcripts: Path | None = None,
    test: str = "test1",
    language: str = "zh",
) -> tuple[Path, list[str]]:
    """Write `samples.jsonl` and a YAML; feature files are linked, or copied where links cannot be made.

    Args:
        labels: `label.npz`.
        features: Modality → folder of `<name>.npy`.
        output: Folder for the set.
        transcripts: CSV with a column `name` and one of text; None leaves texts empty.
        test: Which corpus is tested on; a tenth of train's is set apart for validation.
        language: Of the texts.

    Returns:
        The YAML, and sentences on what is missing.

    Raises:
        MsekitError: No such corpus, no emotions, or files that cannot be read.
    """
    corpora, wanted = read_labels(labels), f"{test}_corpus"
    if absent := [name for name in (_TRAIN, wanted) if name not in corpora]:
        raise MsekitError(f"there is no '{absent[0]}'", where=labels, fix=f"There are {', '.join(sorted(corpora))}.")
    texts = _texts(transcripts, language) if transcripts else {}
    rows, missing = [], dict.fromkeys(features, 0)
    for split, corpus in (("train", _TRAIN), ("test", wanted)):
        for name, about in corpora[corpus].items():
            emotion = about.get("emo") if isinstance(about, dict) else None
            if not isinstance(emotion, str):
                raise MsekitError(f"'{name:.60}' has no 'emo'", where=labels)
            row = {"id": str(name), "text": texts.get(str(name), ""), "label": emotion, "split": split}
            for modality, folder in features.items():
                if _linked(folder / f"{name}.npy", output / modality / f"{name}.npy", folder, output / modality):
                    row[modality] = f"{modality}/{name}.npy"
                else:
                    missing[modality] += 1
            rows.append(row)
    emotions = sorted({row["label"] for row in rows})
    described: dict[str, Any] = {"name": output.resolve().name, "task": "erc", "layout": "folder", "source": "."}
    described |= {"labels": emotions, "language": language, "validation": _VALIDATION}
    output.mkdir(parents=True, exist_ok=True)
    (output / "samples.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    path = output / f"{described['name']}.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
    notes = [f"{count} of {len(rows)} samples have no {modality}" for modality, count in missing.items() if count]
    if without := sum(not row["text"] for row in rows):
        notes.append(f"{without} of {len(rows)} samples have no text")
    return path, notes


def _mapping(pickled: bytes, path: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="msekit-") as folder:
        file = Path(folder) / path.name
        file.write_bytes(pickled)
        content, _ = map_pickle(file)
    value: Any = content
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype == object:
        value = value.item()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise MsekitError(f"a corpus is a {type(value).__name__}, not a dictionary of names", where=path)
    return value


def _texts(path: Path, language: str) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            names = list(rows.fieldnames or ())
            check_header(names, ("name", *_TEXTS), path)
            order = sorted(_TEXTS, key=lambda name: name != ("chinese" if language == "zh" else "english"))
            column = next((name for name in order if name in names), None)
            if "name" not in names or column is None:
                raise MsekitError(
                    f"no column 'name', or none of {', '.join(_TEXTS)}", where=path, fix=f"It has {', '.join(names)}."
                )
            return {row["name"]: row[column] or "" for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MsekitError(f"the transcripts cannot be read: {error}", where=path) from error


def _linked(source: Path, target: Path, source_folder: Path, target_folder: Path) -> bool:
    """Put a file into the set; False where there is none. Names that lead out of the folders count as none."""
    inside = source.parent == source_folder and target.parent == target_folder
    if not inside or ".." in source.name or not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):  # the set's own folder was named, or it was linked before
        return True
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    return True
