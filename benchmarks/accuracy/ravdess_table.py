"""RAVDESS in the published layout → a table of one's own with speakers, which `--folds all` can part.

    python -m benchmarks.accuracy.ravdess_table FOLDER OUTPUT

FOLDER holds `ravdess_{train,valid,test}.pkl`. Its clips of all splits come together; the actor is the last part of an
id. What is used afterwards:

    msekit train --backbone smollm2-135m --dataset ravdess-folds --source OUTPUT --folds all
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from msekit.data.readers.unpickle import map_pickle

MODALITIES = {"audio": "audio", "vision": "video"}


def main() -> None:
    """Write the table and a file of frames per clip and modality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    rows: list[Any] = []
    for split in ("train", "valid", "test"):
        rows += cast("list[Any]", map_pickle(options.folder / f"ravdess_{split}.pkl")[0])
    for modality in MODALITIES:
        (options.output / modality).mkdir(parents=True, exist_ok=True)
    with (options.output / "samples.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            features, name = row["features"], row["id"]
            line = {"id": name, "text": features["text"], "label": row["label"], "speaker": name.rpartition("-")[2]}
            for modality, key in MODALITIES.items():
                line[modality] = f"{modality}/{name}.npy"
                np.save(options.output / line[modality], features[key][: features[f"{key}_len"]].astype(np.float32))
            file.write(json.dumps(line) + "\n")
    print(f"{len(rows)} clips of {len({row['id'].rpartition('-')[2] for row in rows})} actors in {options.output}")


if __name__ == "__main__":
    main()
