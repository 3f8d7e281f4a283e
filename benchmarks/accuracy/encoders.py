"""Features of real speech beside one another: eGeMAPS, log-mel and a real Whisper's hidden states, on emodb.

    python -m benchmarks.accuracy.encoders --data ../shared/data --whisper FOLDER --output runs/encoders --probe
    python -m benchmarks.accuracy.encoders --data ../shared/data --whisper FOLDER --output runs/encoders

The folder holds a Whisper in CTranslate2's format (`benchmarks/accuracy/RESULTS.md` says where one comes from); its
encoder's last states are taken, 50 a second. `--probe` fits a logistic regression to each clip's means and deviations,
strength chosen on validation: a minute. Otherwise smollm2-135m with recipe best over three seeds, `llm-linear` and
LF-LSTM read the same sets. Splits are by speaker. Everything is kept and not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

LABELS = "anger,boredom,disgust,fear,happiness,neutral,sadness"
SEEDS = "1111,2222,3333"
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
KINDS = ("egemaps", "logmel", "whisper")


def whisper_set(clips: Path, output: Path, folder: Path) -> Path:
    """A set whose audio is the encoder's last hidden states."""
    import ctranslate2
    import yaml
    from faster_whisper.feature_extractor import FeatureExtractor
    from safetensors.numpy import save_file

    from msekit.media.decode import sound
    from msekit.media.table import read_table

    description = output / "whisper.yaml"
    if description.is_file():
        return description
    (output / "audio").mkdir(parents=True, exist_ok=True)
    model, prepare = ctranslate2.models.Whisper(str(folder), compute_type="int8"), FeatureExtractor()
    lines: list[str] = []
    for clip in read_table(clips / "clips.csv", clips):
        path = output / "audio" / f"{clip.id}.safetensors"
        if not path.is_file():
            samples_S = sound(clip.path)
            padded_S = np.pad(samples_S, (0, 30 * 16_000 - len(samples_S)))
            mel_1DT = np.ascontiguousarray(prepare(padded_S, padding=False)[None, :, :3000], dtype=np.float32)
            states_1LD = np.array(
                model.encode(ctranslate2.StorageView.from_array(mel_1DT)).to_device(ctranslate2.Device.cpu), np.float32
            )
            partial = path.with_suffix(".partial")
            save_file({"audio": np.ascontiguousarray(states_1LD[0, : -(-len(samples_S) // 320)])}, partial)
            os.replace(partial, path)
        lines.append(json.dumps(clip.fields(), ensure_ascii=False) + "\n")
    (output / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    spec: dict[str, Any] = {"name": "whisper", "task": "erc", "layout": "folder", "labels": LABELS.split(",")}
    description.write_text(yaml.safe_dump(spec | {"source": "."}), encoding="utf-8")
    return description


def extracted_set(clips: Path, output: Path, kind: str) -> Path:
    """A set of `msekit extract`."""
    description = output / f"{kind}.yaml"
    if not description.is_file():
        command = ["extract", str(clips), "--table", str(clips / "clips.csv"), "--labels", LABELS]
        made = ["--audio", kind, "--vision", "none", "--output", str(output)]
        _msekit(*command, *made, also=2)  # a clip was left out, and named
    return description


def probe(description: Path) -> tuple[float, float]:
    """Accuracy and UAR on test of a logistic regression on each clip's means and deviations."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from msekit.data.catalogue import read_spec
    from msekit.data.readers.own_folder import OwnSet

    source = OwnSet(read_spec(description))
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split in ("train", "valid", "test"):
        rows = [row for row in source.rows(split) if row.audio is not None]
        frames = [np.nan_to_num(row.audio.astype(np.float64)) for row in rows if row.audio is not None]
        features = np.stack([np.concatenate([frames_LD.mean(axis=0), frames_LD.std(axis=0)]) for frames_LD in frames])
        parts[split] = features, np.array([row.label for row in rows])
    best = -1.0
    chosen: Any = None
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000, class_weight="balanced"))
        model.fit(*parts["train"])
        score = recall_score(parts["valid"][1], model.predict(parts["valid"][0]), average="macro")
        if score > best:
            best, chosen = score, model
    assert chosen is not None
    answer, truth = chosen.predict(parts["test"][0]), parts["test"][1]
    return float(accuracy_score(truth, answer)), float(recall_score(truth, answer, average="macro"))


def train(description: Path, output: Path, kind: str) -> None:
    """Recipe best over three seeds, the linear model and LF-LSTM on one set."""
    data = ["--dataset", str(description)]
    llm, seeds = ["--backbone", "smollm2-135m"], ["--seeds", SEEDS]
    best = ["--recipe", "best", "--parallel-seeds", "--resume", "--output", str(output / f"{kind}-best")]
    _msekit("train", *data, *llm, *seeds, *best)
    _msekit("baseline", "llm-linear", *llm, *data, "--output", str(output / f"{kind}-linear"))
    _msekit("baseline", "lf-lstm", *data, *seeds, "--output", str(output / f"{kind}-lf-lstm"))


def _msekit(*arguments: str, also: int = 0) -> None:
    done = subprocess.run([sys.executable, "-m", "msekit", *arguments], check=False)
    if done.returncode not in (0, also):
        raise SystemExit(done.returncode)


def main() -> None:
    """Make the sets, then probe or train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--probe", action="store_true")
    options = parser.parse_args()
    clips, rows = options.data / "emodb", []
    for kind in options.only:
        folder = options.output / kind
        made = whisper_set(clips, folder, options.whisper) if kind == "whisper" else extracted_set(clips, folder, kind)
        if options.probe:
            rows.append((kind, *probe(made)))
        else:
            train(made, options.output / "runs", kind)
    if options.probe:
        table = csv.writer(sys.stdout, delimiter="|")
        table.writerows([("features", "acc", "uar"), *((kind, f"{acc:.3f}", f"{uar:.3f}") for kind, acc, uar in rows)])
    else:
        _msekit("report", *map(str, sorted((options.output / "runs").iterdir())))


if __name__ == "__main__":
    main()
