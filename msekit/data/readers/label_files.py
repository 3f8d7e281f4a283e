"""Label files of two toolkits → a table of clips for `msekit extract --table`.

`emobox`: a corpus' folder of EmoBox (Ma et al. 2024), `fold_N/<corpus>_test_fold_N.jsonl` with a line per clip: `key`,
`wav`, `emo`; `label_map.json` beside them names the classes. The table has the column `fold`.
`mertools`: `label….npz` of MERTools (Lian et al. 2024): `train_corpus`, `test_corpus`, … each name → `emo`, `val`;
texts lie in a `transcription….csv`. The file holds pickles, which are read without executing anything in them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msekit.data.readers.mertools_files import is_unsaid, read_labels, read_texts
from msekit.errors import MsekitError
from msekit.json_file import read_json, read_json_lines

COLUMNS = ("file", "id", "text", "label", "split", "fold", "session")
_SPLITS = {"train": "train", "val": "valid", "valid": "valid", "dev": "valid", "test": "test", "whole": "train"}

Row = dict[str, str]


def emobox_rows(folder: Path) -> list[Row]:
    """The clips of a corpus of EmoBox, each in the fold that tests it.

    Raises:
        MsekitError: There are no such files, or a line lacks something.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("fold_*/*_test_fold*.jsonl")):
        fold = path.parent.name.removeprefix("fold_")
        if fold not in files or "_fold_" in path.name:  # older and newer names of one file lie side by side
            files[fold] = path
    if not files:
        raise MsekitError("no label files of EmoBox", where=folder, fix="Looked for fold_N/*_test_fold_N.jsonl.")
    names = _label_map(folder / "label_map.json")
    rows = []
    for fold, path in files.items():
        for where, line in _lines(path):
            for key in ("key", "wav", "emo"):
                if not isinstance(line.get(key), str):
                    raise MsekitError(f"'{key}' is missing", where=where)
            label = names.get(line["emo"], line["emo"])
            text = str(line.get("text") or "")
            rows.append({"file": line["wav"], "id": line["key"], "text": text, "label": label, "fold": fold})
            rows[-1]["split"] = "train"  # every row has one; folds are read in its place
    return rows


def mertools_rows(
    labels: Path, texts: Path | None, target: Literal["emo", "val"], suffix: str, language: str = "en"
) -> tuple[list[Row], list[str]]:
    """The clips of a label file of MERTools.

    Args:
        labels: The .npz.
        texts: Its transcription, a CSV with `name` and a text; None for none.
        target: Emotion or valence.
        suffix: Ending of the clips' files.
        language: Of the texts.

    Returns:
        The rows, and corpora without labels, which are left out.

    Raises:
        MsekitError: The files cannot be read, or a clip lacks its label or its text.
    """
    said = read_texts(texts, language) if texts is not None else {}
    rows, left_out = [], []
    for corpus, clips in read_labels(labels).items():
        split = _SPLITS.get(re.sub(r"\d*(_corpus)?$", "", corpus))
        if split is None:
            raise MsekitError(f"'{corpus}' is no corpus of clips", where=labels)
        if is_unsaid(clips):
            left_out.append(corpus)
            continue
        for name, clip in clips.items():
            where = f"{labels}, {corpus}, {name}"
            if not isinstance(clip, dict) or clip.get(target) is None:
                raise MsekitError(f"'{target}' is missing", where=where)
            if texts is not None and name not in said:
                raise MsekitError(f"no text for '{name}'", where=texts)
            row = {"file": f"{name}{suffix}", "id": str(name), "text": said.get(str(name), ""), "split": split}
            session = re.match(r"Ses\d+", str(name))
            rows.append(row | {"label": _plain(clip[target]), "session": session[0] if session else ""})
    if not rows:
        raise MsekitError("no clip has a label", where=labels)
    return rows, left_out


def write_rows(rows: list[Row], path: Path) -> None:
    """Write a table; columns that no row fills are left out."""
    filled = [name for name in COLUMNS if name in ("text", "split") or any(row.get(name) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, filled, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_json_lines(path, "label file"), start=1):
        yield f"{path}, line {number}", line


def _label_map(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    names = read_json(path, "label map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise MsekitError("label_map.json is no map of names", where=path)
    return names
