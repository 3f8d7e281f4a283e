"""The samples to pick from on the page: found for every run whose data is at hand, and a line says why where not."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub_server import HubServer

from msekit.data.catalogue import DATASETS, SPLITS
from msekit.data.download import with_features
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.serving.shelf import shelf_of

GOLDEN = Path(__file__).parents[1] / "golden" / "run" / "finished" / "seed-1111"


class Listener(Reporter):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def run_of(folder: Path, feature_dtype: str = "float32", **settings: Any) -> Path:
    """A finished run's folder with these settings in its config.yaml."""
    folder.mkdir()
    for name in ("config.yaml", "adapter.json"):
        shutil.copy(GOLDEN / name, folder / name)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | settings
    config["data"]["dtype"] = feature_dtype
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    description = json.loads((folder / "adapter.json").read_text()) | {"feature_dtype": feature_dtype}
    (folder / "adapter.json").write_text(json.dumps(description))
    return folder


def test_a_set_that_options_describe(tmp_path: Path):
    source = tmp_path / "clips"
    source.mkdir()
    rows = [{"id": f"s{number}", "split": split, "text": "well", "label": "joy"} for number, split in enumerate(SPLITS)]
    (source / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    described = {"labels": ["joy", "anger"], "range": None, "language": None, "prompt": None}
    run = run_of(tmp_path / "run", dataset="moods", source=str(source), description=described)
    shelf = shelf_of(run, None, None, Listener())
    assert shelf is not None
    assert (len(shelf), shelf.title(0), shelf.truth(0)) == (1, "s2: well", "joy")
    moved, listener = source.rename(tmp_path / "moved"), Listener()
    assert shelf_of(run, None, None, listener) is None
    assert "--source says where its files lie now" in listener.lines[0]
    shelf = shelf_of(run, None, moved, listener)
    assert shelf is not None
    assert shelf.title(0) == "s2: well"
    with pytest.raises(MsekitError, match="there is no such file or folder"):
        shelf_of(run, None, source, listener)


def test_a_set_that_was_downloaded(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path / "cache"))
    run, listener = run_of(tmp_path / "run", dataset="mosei"), Listener()
    rng = np.random.default_rng(0)
    split = {
        "raw_text": ["one", "two"],
        "audio": rng.normal(size=(2, 5, 74)),
        "vision": rng.normal(size=(2, 4, 35)),
        "audio_lengths": [5, 5],
        "vision_lengths": [4, 4],
        "regression_labels": np.array([1.0, -2.0]),
        "id": ["a", "b"],
    }
    hub.add(
        str(DATASETS["mosei"].hub), {"unaligned_50.pkl": pickle.dumps(dict.fromkeys(SPLITS, split))}, kind="dataset"
    )
    assert shelf_of(run, None, None, listener) is None
    assert hub.requests == [], "a page that starts downloads nothing"
    assert "not on this machine" in listener.lines[0]
    assert "msekit data fetch mosei" in listener.lines[0]
    with_features(DATASETS["mosei"], Reporter(quiet=True))
    shelf = shelf_of(run, None, None, listener)
    assert shelf is not None
    assert [shelf.truth(0), shelf.truth(1)] == ["+1.0", "-2.0"]


def test_features_in_the_run_s_own_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path / "cache"))
    shelf = shelf_of(run_of(tmp_path / "run", "float16"), None, None, Listener())
    assert shelf is not None
    assert shelf.table.audio(0).dtype == np.float16
    other = shelf_of(tmp_path / "run", "synthetic-msa", None, Listener())
    assert other is not None
    assert other.table.audio(0).dtype == np.float16


def test_what_cannot_be_opened_is_said_once_and_refused_where_it_was_asked_for(tmp_path: Path):
    listener = Listener()
    gone = run_of(tmp_path / "gone", dataset=str(tmp_path / "gone.yaml"))
    exported = run_of(tmp_path / "exported")
    (exported / "config.yaml").unlink()
    for run, reason in ((gone, "no such data set description"), (exported, "config.yaml")):
        listener.lines.clear()
        assert shelf_of(run, None, None, listener) is None
        assert len(listener.lines) == 1
        assert reason in listener.lines[0]
        assert "--dataset" in listener.lines[0]
    with pytest.raises(MsekitError, match="unknown data set"):
        shelf_of(gone, "no-such-set", None, listener)


def test_a_picked_sample_comes_with_its_dialogue(tmp_path: Path):
    source = tmp_path / "talk"
    source.mkdir()
    rows = [{"split": split, "text": split, "label": "joy", "speaker": "A", "dialogue_id": split} for split in SPLITS]
    for number, who in enumerate("BAB"):
        about = {"text": f"t{number}", "speaker": who, "dialogue_id": "d"}
        rows.append({"split": "test", "label": "anger"} | about)
    (source / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    described = {"labels": ["joy", "anger"], "range": None, "language": None, "prompt": None}
    shelf = shelf_of(
        run_of(tmp_path / "run", dataset="moods", source=str(source), description=described), None, None, Listener()
    )
    assert shelf is not None
    assert shelf.said(3, 2) == {"history": [("B", "t0"), ("A", "t1")], "speaker": "B"}
    assert shelf.said(3, 1) == {"history": [("A", "t1")], "speaker": "B"}
    assert shelf.said(1, 2) == {"history": None, "speaker": "B"}
    assert shelf.said(3, 0) == {"history": None, "speaker": None}
