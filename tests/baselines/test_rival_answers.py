"""On made-up sets whose right answers are known: fusion systems hear both modalities; graph systems know who spoke."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from msekit.baselines.catalogue import BASELINES
from msekit.baselines.run import run_baseline
from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.data.readers.synthetic import synthetic_rows
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
RIVALS = [name for name, entry in BASELINES.items() if entry.needs and entry.level != "llm"]
OVER_DIALOGUES = [name for name in RIVALS if "dialogues" in BASELINES[name].needs]
ON_CLASSES = [name for name in RIVALS if BASELINES[name].needs == ("frames",)]
GRAPHS = ("mmgcn", "mm-dfn", "ga2mif")
EPOCHS = {"mult": 2, "eft": 2, "lft": 2, "pmr": 2, "lfmim": 2, "misa": 5, "mmim": 6, "av-mixup": 7}
EPOCHS |= {"mmgcn": 3, "mm-dfn": 4, "ga2mif": 3, "emocaps": 3}
SHALLOW = {
    "mult": {"mult.LAYERS": 1},
    "pmr": {"pmr.LAYERS": 1},
    "lfmim": {"lfmim.LAYERS": 1},
    "eft": {"eft_lft.LAYERS": 1},
    "lft": {"eft_lft.LAYERS": 1},
    "mm-dfn": {"mm_dfn.LAYERS": 4},
    "ga2mif": {"ga2mif.GRAPH_LAYERS": 1, "ga2mif.CROSS_LAYERS": 1},
}
"""Systems whose depth costs minutes here, where less of it is enough."""


@pytest.fixture(autouse=True)
def shallow(request, monkeypatch) -> None:
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    for attribute, layers in SHALLOW.get(name, {}).items():
        monkeypatch.setattr(f"msekit.baselines.{attribute}", layers)


def written(folder: Path, name: str, labels: tuple[str, ...], rows: dict[str, list]) -> DatasetSpec:
    for split, samples in rows.items():
        (folder / f"{name}_{split}.pkl").write_bytes(pickle.dumps(samples))
    return DatasetSpec(name=name, task="erc", layout="erc-pickle", labels=labels, source=folder, files=name)


def in_dialogues(folder: Path) -> DatasetSpec:
    """synthetic-erc, four utterances a dialogue, of speakers that tell nothing."""
    spec, rows = DATASETS["synthetic-erc"], {}
    for split in ("train", "valid", "test"):
        rows[split] = [
            {
                "id": row.id,
                "features": {"text": row.text, "audio": row.audio, "video": row.vision},
                "label": int(row.label),
                "speaker": "AB"[number % 2],
                "dialogue_id": number // 4,
            }
            for number, row in enumerate(synthetic_rows("synthetic-erc", split))
        ]
    return written(folder, "talks", spec.labels or (), rows)


def who_spoke_before(folder: Path, dialogues: int) -> DatasetSpec:
    """A dialogue opens, and is answered by the same speaker or by the other: that is the label of the answer.

    Whoever reads utterances one by one is right about the openings and about half of the answers.
    """
    generator, rows = np.random.default_rng(0), {}
    for split, size in (("train", dialogues), ("valid", 40), ("test", 80)):
        pairs = list(itertools.product("AB", repeat=2)) * (size // 4)
        rows[split] = []
        for dialogue, place in enumerate(generator.permutation(size)):
            speakers = pairs[place]
            for turn, text in enumerate(("So it begins.", "That is an answer.")):
                label = "opens" if turn == 0 else "same" if speakers[0] == speakers[1] else "other"
                features = {
                    "text": text,
                    "audio": generator.normal(size=(2, 3)),
                    "video": generator.normal(size=(1, 2)),
                }
                row = {"features": features, "label": label, "speaker": speakers[turn], "dialogue_id": dialogue}
                rows[split].append(row)
    return written(folder, "turns", ("opens", "same", "other"), rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CLASSES)
def test_a_fusion_system_reaches_the_ceiling(name, tmp_path: Path):
    """.25 by text, .50 by one modality, 1 by both; shuffled, nothing is left."""
    report = run_baseline(name, DATASETS["synthetic-erc"], 1, tmp_path / "run", epochs=EPOCHS[name], reporter=QUIET)
    assert report["metrics"]["acc"] >= 0.95
    assert report["integrity"]["metrics"]["acc"] < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", OVER_DIALOGUES)
def test_a_system_over_dialogues_reaches_the_ceiling(name, tmp_path: Path):
    report = run_baseline(name, in_dialogues(tmp_path), 1, tmp_path / "run", epochs=EPOCHS[name], reporter=QUIET)
    assert report["metrics"]["acc"] >= 0.95
    assert report["integrity"]["metrics"]["acc"] < 0.4


@pytest.mark.slow
def test_self_mm_reaches_the_ceiling_of_intensities(tmp_path: Path):
    """Correlation .71 by one modality, 1 by both."""
    report = run_baseline("self-mm", DATASETS["synthetic-msa"], 1, tmp_path / "run", epochs=10, reporter=QUIET)
    assert report["metrics"]["corr"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GRAPHS, "emocaps", "lft"])
def test_who_spoke_before_is_known_to_graph_systems_alone(name, tmp_path: Path):
    dialogues, epochs = (200, 30) if name == "mmgcn" else (120, 6)
    spec = who_spoke_before(tmp_path, dialogues)
    report = run_baseline(name, spec, 1, tmp_path / "run", epochs=epochs, reporter=QUIET)
    if name in GRAPHS:
        assert report["metrics"]["acc"] >= 0.95
    else:
        assert report["metrics"]["acc"] < 0.8
