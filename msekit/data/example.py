"""`msekit data example NAME`: a small data set like one of one's own, which the documents' examples use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from msekit.data.catalogue import DATASETS, SPLITS
from msekit.data.readers.synthetic import synthetic_rows
from msekit.errors import MsekitError, nearest

EXAMPLES = {"moods": "synthetic-erc", "opinions": "synthetic-msa"}
"""Name → the generated set that it is taken from: text alone is ambiguous, audio and vision decide."""
SIZES = {"train": 240, "valid": 80, "test": 80}
_UTTERANCES = 8
"""In a dialogue."""


def write_example(name: str, folder: Path) -> Path:
    """Write an example: `samples.jsonl`, features beside it, and a description.

    Args:
        name: Of `EXAMPLES`.
        folder: New or empty.

    Returns:
        The description, `NAME.yaml`.

    Raises:
        MsekitError: No such example, or the folder holds something or cannot be written.
    """
    if name not in EXAMPLES:
        raise MsekitError(f"no example '{name}'", fix=nearest(name, EXAMPLES))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MsekitError("the folder already holds something", where=folder, fix="Choose another with --output.")
    spec = DATASETS[EXAMPLES[name]]
    try:
        for modality in ("audio", "vision"):
            (folder / modality).mkdir(parents=True, exist_ok=True)
        lines = [line for split in SPLITS for line in _lines(name, split, folder)]
        (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        labels = {"labels": list(spec.labels)} if spec.labels else {"range": list(spec.range or ())}
        description = {"name": name, "task": spec.task, "language": "en", "layout": "folder", "source": ".", **labels}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise MsekitError(f"the example cannot be written: {error.strerror}", where=folder) from error
    return path


def _lines(name: str, split: str, folder: Path) -> list[str]:
    """A line per sample of a split, its features written beside it."""
    labels, lines = DATASETS[EXAMPLES[name]].labels, []
    for number, row in zip(range(SIZES[split]), synthetic_rows(EXAMPLES[name], split), strict=False):
        for modality in ("audio", "vision"):
            np.save(folder / modality / f"{row.id}.npy", getattr(row, modality))
        lines.append(
            json.dumps(
                {
                    "id": row.id,
                    "text": row.text,
                    "label": labels[int(row.label)] if labels and not isinstance(row.label, tuple) else row.label,
                    "split": split,
                    "speaker": f"{split}-{'AB'[number % 2]}",
                    "dialogue_id": f"{split}-{number // _UTTERANCES}",
                }
            )
        )
    return lines
