"""Descriptions of several targets, and what their tables say: read as they are meant, or refused in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from msekit.data.cache.cache import fingerprint_of, prepare
from msekit.data.catalogue import DATASETS, DatasetSpec, read_spec, resolve_dataset
from msekit.data.targets import questions_of
from msekit.data.verify import verify
from msekit.errors import MsekitError
from msekit.evaluation.metrics import metrics_of
from msekit.paths import shipped

TARGETS = {
    "mood": {"classes": ["calm", "excited"]},
    "signs": {"labels": ["smile", "tears"], "aliases": {"crying": "tears"}},
    "valence": {"range": [-1, 1], "weight": 0.5},
}
NOTHING = np.nan


def described(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> DatasetSpec:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps({"text": f"Row {number}."} | row) + "\n" for number, row in enumerate(rows))
    (folder / "samples.jsonl").write_text(text)
    path = folder / "set.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "layout": "folder", "targets": TARGETS} | keys))
    return read_spec(path)


def rows_of(folder: Path, said: list[dict[str, Any]], **keys: Any) -> np.ndarray:
    """What the cache holds of these rows, all of them test's; (N, questions)."""
    whole = {"targets": {"mood": "calm", "signs": ["smile"], "valence": 0.5}}
    rest = [whole | {"split": "train"}, whole | {"split": "valid"}]
    spec = described(folder, [*({"split": "test"} | row for row in said), *rest], **keys)
    return prepare(spec, root=folder / "cache").split("test").labels


def test_a_row_has_a_number_for_each_question_and_none_where_it_says_nothing(tmp_path: Path):
    whole = {"mood": "excited", "signs": ["smile", "crying"], "valence": -1}
    found = rows_of(
        tmp_path,
        [
            {"targets": whole},
            {"mood": "excited", "signs": "smile; tears", "valence": -1.0},
            {"targets": {"mood": 1, "signs": {"smile": True, "tears": None}}},
            {"signs.smile": 0, "signs.tears": 2.3, "valence": None},
            {"signs": "none"},
            {"targets": {"signs": []}},
        ],
    )
    expected = [
        [1, 1, 1, -1],
        [1, 1, 1, -1],
        [1, 1, NOTHING, NOTHING],
        [NOTHING, 0, 1, NOTHING],
        [NOTHING, 0, 0, NOTHING],
        [NOTHING, 0, 0, NOTHING],
    ]
    assert np.array_equal(found, expected, equal_nan=True)


def test_columns_lead_to_targets_and_to_labels(tmp_path: Path):
    columns = {"mood": "Emotion", "signs.smile": "happy", "signs.tears": "sad"}
    row = {"Emotion": "calm", "happy": 1.0, "sad": 0, "valence": 0.25}
    assert rows_of(tmp_path, [row], columns=columns).tolist() == [[0, 1, 0, 0.25]]


def test_a_csv_has_a_column_for_each_target_whole_or_by_label(tmp_path: Path):
    lines = ["text,split,mood,signs.smile,signs.tears,valence"]
    lines += [f"Well {split}.,{split},calm,1,,0.5" for split in ("train", "valid", "test")]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    spec = DatasetSpec(name="own", layout="csv", targets=TARGETS, source=tmp_path / "own.csv")
    labels = prepare(spec, root=tmp_path).split("train").labels
    assert np.array_equal(labels, [[0, 1, NOTHING, 0.5]], equal_nan=True)
    (tmp_path / "own.csv").write_text("\n".join(lines).replace("valence", "other"))
    with pytest.raises(MsekitError, match="column 'valence' is missing"):
        prepare(spec, root=tmp_path)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"targets": {"moods": "calm"}}, "no target 'moods'.*mood"),
        ({"mood": "calm", "targets": {"mood": "calm"}}, "'mood' is there twice"),
        ({"signs": ["smile"], "signs.tears": 1}, "'signs' is there twice"),
        ({"signs": ["laughter"]}, "no label 'laughter'"),
        ({"signs": 3}, "'signs' is a int, not a list of labels"),
        ({"signs.smile": "perhaps"}, "'signs.smile' is neither yes nor no"),
        ({"signs.smile": -1}, "'signs.smile' is neither yes nor no"),
        ({"mood": "angry"}, "unknown label 'angry'"),
        ({"valence": 3}, "label 3 is outside the range of 'valence'"),
        ({"targets": ["calm"]}, "'targets' is a list"),
    ],
)
def test_what_a_row_cannot_say_is_refused(tmp_path: Path, row: dict[str, Any], match: str):
    with pytest.raises(MsekitError, match=match):
        rows_of(tmp_path, [row])


def test_a_row_of_train_that_answers_nothing_is_refused(tmp_path: Path):
    spec = described(tmp_path, [{"split": "train"}, {"split": "train", "mood": "calm"}])
    with pytest.raises(MsekitError, match=r"'mood, signs, valence' is missing.*1 of train's 2 rows"):
        prepare(spec, root=tmp_path)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"task": "erc"}, "shorthand of one target"),
        ({"labels": ["a", "b"]}, "`labels` belongs into one of `targets`"),
        ({"targets": {}, "task": "targets"}, "needs `targets`"),
        ({"targets": {"text": {"range": [0, 1]}}}, "cannot be called 'text'"),
        ({"targets": {"a b": {"range": [0, 1]}}}, "cannot be called 'a b'"),
        ({"targets": {"a": {"range": [0, 1], "classes": ["b", "c"]}}}, "a target is one of"),
        ({"targets": {"a": {}}}, "a target is one of"),
        ({"targets": {"a": {"range": [1, 0]}}}, "low < high"),
        ({"targets": {"a": {"range": [0, 1], "weight": 0}}}, "weight"),
        ({"targets": {"a": {"range": [0, 1], "weight": float("inf")}}}, "weight"),
        ({"targets": {"a": {"range": [0, 0.04]}}}, "room for one alone"),
        ({"targets": {}, "task": "msa", "range": [0, 0.04]}, "room for one alone"),
        ({"targets": {"a": {"labels": ["b", "none"]}}}, "or is `none`"),
        ({"targets": {"a": {"labels": ["b;c"]}}}, "holds a `;`"),
        ({"targets": {"a": {"labels": ["b"], "prompt": "b?"}}}, "holds {label}"),
        ({"layout": "erc-pickle"}, "read from tables of one's own"),
        ({"key_metric": "mood"}, "`key_metric` is 'mean' or `target:metric`"),
        ({"language": "de"}, "needs a `prompt` for the target 'mood'"),
    ],
)
def test_what_a_description_cannot_say_is_refused(tmp_path: Path, keys: dict[str, Any], match: str):
    with pytest.raises(MsekitError, match=match):
        described(tmp_path, [], **keys)


def test_what_no_sample_answers_is_found_before_training(tmp_path: Path):
    """A range has no names that are missed. Of train it makes the set unusable."""
    whole = {"mood": "calm", "signs": ["smile"], "valence": 0.5}
    other = whole | {"mood": "excited", "signs": ["tears"]}
    said = {"train": {"mood": "calm"}, "valid": {"valence": 0}, "test": {"signs.smile": 1}}
    rows = [{"split": split} | row for split in said for row in (whole, other)]
    checked = verify(described(tmp_path / "whole", rows))
    assert not [finding for finding in checked.findings if "answers" in finding.what]
    assert all(check.unanswered == {} for check in checked.splits.values())
    checked = verify(described(tmp_path / "parts", [{"split": split} | row for split, row in said.items()]))
    found = {(f.severity, f.split): f.what for f in checked.findings if "answers" in f.what}
    assert found == {
        ("error", "train"): "no sample answers signs.smile, signs.tears, valence",
        ("warning", "valid"): "no sample answers mood, signs.smile, signs.tears",
        ("warning", "test"): "no sample answers mood, signs.tears, valence",
    }
    assert checked.verdict == "unusable"
    assert checked.splits["test"].unanswered == {"mood": 1, "signs.tears": 1, "valence": 1}
    told = [finding.what for finding in checked.findings if finding.what.startswith("no sample is labelled")]
    assert told == ["no sample is labelled mood:excited"], "what is not answered at all is said once"


def test_what_is_made_up_takes_no_other_targets():
    with pytest.raises(MsekitError, match="'synthetic-targets' is made with what it asks: it takes no other targets"):
        resolve_dataset("synthetic-targets", options={"targets": TARGETS})


SHIPPED = ("iemocap-vad", "mer-emotion-valence", "mosei-emotions", "sims-modalities")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_descriptions_read_a_table_with_their_columns(tmp_path: Path, name: str):
    with pytest.raises(MsekitError, match="needs its files"):
        resolve_dataset(name)
    spec = resolve_dataset(name, tmp_path)
    metrics_of(spec)
    row: dict[str, Any] = {}
    for question in questions_of(spec):
        first = 1 if question.label is not None else (question.spec.labels or question.spec.range or ())[0]
        row[spec.columns.get(question.name, question.name)] = first
    lines = [json.dumps({"text": split, "split": split} | row) for split in ("train", "valid", "test")]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines))
    ((*numbers,),) = prepare(spec, root=tmp_path / "cache").split("test").labels.tolist()
    ranges = [(question.spec.range or (0.0,))[0] for question in questions_of(spec)]
    assert numbers == [1.0 if one.label else low for one, low in zip(questions_of(spec), ranges, strict=True)]


def test_every_shipped_description_with_targets_is_tried_above():
    files = (shipped("configs") / "datasets").glob("*.yaml")
    assert {file.stem for file in files if "targets" in yaml.safe_load(file.read_text())} == set(SHIPPED)


def test_a_set_of_one_target_says_nothing_of_several():
    for name in ("mosei", "meld"):
        assert "targets" not in DATASETS[name].model_dump(mode="json")
    spec = DATASETS["synthetic-targets"]
    assert DatasetSpec(**spec.model_dump(mode="json")) == spec
    names = ["emotion", "signs.laughter", "signs.sighs", "signs.smile", "signs.tears", "valence"]
    assert [question.name for question in questions_of(spec)] == names


def test_every_target_is_counted_by_itself(tmp_path: Path):
    spec = DATASETS["synthetic-targets"]
    counts = verify(spec).splits["train"].labels
    assert counts == prepare(spec, root=tmp_path).info.splits["train"].label_counts
    assert [counts[f"emotion:{name}"] for name in ("calm", "glad", "sad", "angry")] == [240] * 4
    assert [counts[f"signs:{name}"] for name in ("laughter", "sighs", "smile", "tears")] == [480] * 4
    assert [name for name in counts if name.startswith("valence")][:2] == ["valence:-3.0", "valence:-2.0"]


def test_its_four_labels_are_independent(tmp_path: Path):
    labels_NQ = prepare(DATASETS["synthetic-targets"], root=tmp_path).split("train").labels
    _, counts = np.unique(labels_NQ[:, 1:5], axis=0, return_counts=True)
    assert counts.tolist() == [60] * 16


def test_a_target_decides_the_cache_by_what_its_values_are_read_by(tmp_path: Path):
    spec = described(tmp_path, [{"split": "train", "mood": "calm"}])
    first = fingerprint_of(spec)
    lighter = dict(spec.targets) | {"mood": spec.targets["mood"].model_copy(update={"weight": 3.0})}
    other = dict(spec.targets) | {"mood": spec.targets["mood"].model_copy(update={"classes": ("excited", "calm")})}
    assert fingerprint_of(spec.model_copy(update={"targets": lighter})) == first
    assert fingerprint_of(spec.model_copy(update={"targets": other})) != first
