"""MERTools' layout → a folder of one's own: `label.npz`, transcripts as CSV, and a folder of `<name>.npy` a feature.

label.npz            train_corpus, test1_corpus, … : name → {"emo": "happy", "val": 0.5}
<features>/<name>.npy
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from msekit.data.readers.mertools_files import is_unsaid, read_labels, read_texts
from msekit.data.readers.rows import number_of
from msekit.errors import MsekitError

_TRAIN = "train_corpus"
_VALIDATION = 0.1


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
    if unsaid := [name for name in (_TRAIN, wanted) if is_unsaid(corpora[name])]:
        fix = "Name another corpus with --test." if unsaid[0] == wanted else None
        raise MsekitError(f"'{unsaid[0]}' has placeholders in the place of labels", where=labels, fix=fix)
    texts = read_texts(transcripts, language) if transcripts else {}
    rows, missing = [], dict.fromkeys(features, 0)
    for split, corpus in (("train", _TRAIN), ("test", wanted)):
        for name, about in corpora[corpus].items():
            emotion = about.get("emo") if isinstance(about, dict) else None
            if not isinstance(emotion, str):
                raise MsekitError(f"'{name:.60}' has no 'emo'", where=labels)
            row: dict[str, Any] = {"id": str(name), "text": texts.get(str(name), ""), "label": emotion, "split": split}
            if (valence := number_of(about.get("val"))) is not None and not is_unsaid({name: about}):
                row["val"] = valence
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
