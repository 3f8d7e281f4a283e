"""`data verify` speaks of causes: one line for each, with the count, the extremes or the values, and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.findings import by_cause, line_of
from msekit.data.verify import verify
from msekit.errors import MsekitError


def own(folder: Path, rows: list[dict[str, Any]], **options: Any) -> DatasetSpec:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return resolve_dataset("own", folder, options)


def errors(spec: DatasetSpec) -> list[str]:
    groups = by_cause([finding for finding in verify(spec).findings if finding.severity == "error"])
    return [line_of(group) for group in groups]


def rows(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"id": f"c{n}", "text": f"t{n}", "label": x, "split": SPLITS[n % 3]} for n, x in enumerate(labels)]


def test_a_range_that_is_too_small_is_one_line_with_the_extremes_and_the_range_to_give(tmp_path: Path) -> None:
    labels = [round(x, 2) for x in np.linspace(-2.7, 2.9, 90).tolist()]
    (line,) = errors(own(tmp_path, rows(labels), range=(-1.0, 1.0)))
    outside = sum(abs(label) > 1 for label in labels)
    assert f"labels are outside the range of 'own', -1 to 1: -2.7 to 2.9: {outside} samples, train" in line
    assert line.endswith("give --range -3,3")


def test_unknown_labels_are_one_line_with_the_first_of_them_and_the_known_ones(tmp_path: Path) -> None:
    labels = ["joy", "anger", "joy", *(f"mood{n}" for n in range(60))]
    (line,) = errors(own(tmp_path, rows(labels), labels=("joy", "anger")))
    assert "unknown labels: 'mood0', 'mood3', " in line
    assert ": 60 samples, train 20, valid 20, test 20" in line
    assert "Known labels of 'own': 0 joy, 1 anger" in line
    assert len(line) < 800


def test_missing_keys_name_the_columns_of_the_row(tmp_path: Path) -> None:
    bad = [{"utterance": f"t{n}", "emotion": "joy", "split": "train"} for n in range(20)]
    (line,) = errors(own(tmp_path, rows(["joy"] * 3) + bad, labels=("joy", "anger")))
    assert "'text' is missing: 20 samples" in line
    assert "The row holds: utterance, emotion, split" in line


@pytest.mark.parametrize("turned", [False, True])
def test_widths_that_differ_are_one_line_and_turned_arrays_are_recognised(tmp_path: Path, turned: bool) -> None:
    spec = own(tmp_path, rows(["joy"] * 30), labels=("joy", "anger"))
    (tmp_path / "audio").mkdir()
    for n in range(30):
        shape = (8, n + 3) if turned else (n + 3, 8 if n < 3 else n)
        np.save(tmp_path / "audio" / f"c{n}.npy", np.ones(shape, np.float32))
    (line,) = errors(spec)
    assert "'audio' has not the" in line
    assert " to " in line
    assert ("Are the arrays (features, frames)?" in line) == turned


def test_one_stray_width_is_not_taken_for_turned_arrays(tmp_path: Path) -> None:
    spec = own(tmp_path, rows(["joy"] * 10), labels=("joy", "anger"))
    (tmp_path / "audio").mkdir()
    for n in range(10):
        np.save(tmp_path / "audio" / f"c{n}.npy", np.ones((10, 7 if n == 4 else 8), np.float32))
    (line,) = errors(spec)
    assert "'audio' has 7 features per frame, earlier rows have 8" in line
    assert "save x.T" not in line
    assert "(c4)" in line
    assert line.endswith("(row 1 (c4))"), "the place once"


def test_faults_with_words_of_their_own_are_one_line_too(tmp_path: Path) -> None:
    spec = own(tmp_path, rows(["joy"] * 30), labels=("joy", "anger"))
    (tmp_path / "audio").mkdir()
    for n in range(30):
        np.savez(tmp_path / "audio" / f"c{n}.npz", **{f"a{n}": np.ones((3, 2)), f"b{n}": np.ones((3, 2))})
    (line,) = errors(spec)
    assert "none of them 'audio' (others are like it): 30 samples" in line
    assert "Name one array 'audio'" in line


def test_advice_is_told_by_verify_as_by_train(tmp_path: Path) -> None:
    own(tmp_path, rows(["Joy"] * 3), labels=("joy", "anger"))
    arguments = ["own", "--source", str(tmp_path), "--labels", "joy,anger"]
    for command in (["data", "verify"], ["data", "prepare"], ["data", "info"]):
        result = CliRunner().invoke(app, [*command, *arguments])
        assert isinstance(result.exception, MsekitError)
        assert "Did you mean 'joy'?" in str(result.exception)
        assert "Did you mean 'joy'?" in result.output or command[1] == "info"


def test_as_json_each_split_keeps_its_own_finding_with_its_remedy(tmp_path: Path) -> None:
    own(tmp_path, rows([2.0, 0.5, -3.0]), range=(-1.0, 1.0))
    command = ["data", "verify", "own", "--source", str(tmp_path), "--range", "-1,1", "--format", "json"]
    findings = json.loads(CliRunner().invoke(app, command).stdout)["findings"]
    kept = {f["split"]: (f["samples"], f["low"], f["high"]) for f in findings if f["severity"] == "error"}
    assert kept == {"train": (1, 2.0, 2.0), "test": (1, -3.0, -3.0)}


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (
            ["joy", "anger", "joy"],
            "found are joy, anger, to be given in the order of their numbers: give --labels joy,anger",
        ),
        ([0.5, -2.25, 1], "numbers from -2.25 to 1: give --range -3,1"),
        ([0, 1, 2], "give --range 0,2 (or if they are classes --labels 0,1,2)"),
        ([None, None, None], "Say what the labels of your own files are: --labels joy,anger,… or --range -3,3"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "info"])
def test_where_no_labels_are_given_those_found_are_offered(
    tmp_path: Path, labels: list[Any], advice: str, command: str
) -> None:
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows(labels))), encoding="utf-8")
    result = CliRunner().invoke(app, ["data", command, "moods", "--source", str(tmp_path)])
    assert isinstance(result.exception, MsekitError)
    assert advice in str(result.exception)
