"""Folds of a table: no speaker or session in two splits, every row tested once, the same whatever the rows' order."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from msekit.data.cache.cache import fingerprint_of
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.data.readers.chosen_folds import chosen_folds, number_of_folds
from msekit.data.readers.folds import snake
from msekit.data.readers.own_folder import OwnSet
from msekit.errors import MsekitError
from msekit.paths import shipped

SPLITS = ("train", "valid", "test")


def write(folder: Path, speakers: int = 10, shuffled: bool = False, **more: object) -> Path:
    """Four rows of each speaker, two speakers to a session."""
    rows = [
        {"id": f"{s}-{n}", "text": "so", "label": "ab"[n % 2], "speaker": f"actor {s}", "session": (s + 1) // 2} | more
        for s in range(1, speakers + 1)
        for n in range(4)
    ]
    if shuffled:
        random.Random(0).shuffle(rows)
    folder.mkdir(exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def described(folder: Path, fold: int | None = None, **folds: object) -> DatasetSpec:
    return DatasetSpec(name="x", task="erc", layout="folder", labels=("a", "b"), source=folder, folds=folds, fold=fold)


def ids(spec: DatasetSpec) -> dict[str, set[str]]:
    source = OwnSet(spec)
    return {split: {row.id for row in source.rows(split)} for split in SPLITS}


@pytest.mark.parametrize(
    ("folds", "count", "group"),
    [
        ({"by": "speaker", "k": 5}, 5, lambda id: id.partition("-")[0]),
        ({"by": "speaker"}, 10, lambda id: id.partition("-")[0]),
        ({"by": "session"}, 5, lambda id: (int(id.partition("-")[0]) + 1) // 2),
        ({"by": "session", "k": 3}, 3, lambda id: (int(id.partition("-")[0]) + 1) // 2),
    ],
)
def test_every_row_is_tested_once_and_no_group_is_parted(tmp_path: Path, folds: dict, count: int, group):
    write(tmp_path)
    assert number_of_folds(described(tmp_path, **folds)) == count
    tested: list[str] = []
    parts = [ids(described(tmp_path, fold, **folds)) for fold in range(1, count + 1)]
    for place, part in enumerate(parts):
        groups = {split: {group(id) for id in part[split]} for split in SPLITS}
        assert not groups["train"] & groups["valid"]
        assert not (groups["train"] | groups["valid"]) & groups["test"]
        assert all(groups.values())
        assert part["valid"] == parts[(place + 1) % count]["test"], "the next fold validates"
        tested += part["test"]
    assert len(tested) == len(set(tested)) == 40


def test_given_folds_are_taken_in_their_order(tmp_path: Path):
    write(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        line["fold"] = ("f1", "f2", "f10")[int(line["id"][-1]) % 3]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert {id[-1] for id in ids(described(tmp_path, 3, by="given"))["test"]} == {"2"}, "f10 comes after f2"
    with pytest.raises(MsekitError, match="the rows have 3 folds, and `folds` says 4"):
        ids(described(tmp_path, 1, by="given", k=4))


def test_the_order_of_the_rows_decides_nothing(tmp_path: Path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other", shuffled=True)
    for fold in range(1, 5):
        assert ids(described(one, fold, by="speaker", k=4)) == ids(described(other, fold, by="speaker", k=4))


def test_actors_that_alternate_are_mixed_in_every_fold():
    """RAVDESS: odd actors are men."""
    folds = [[actor for actor in range(1, 25) if snake(actor - 1, 6) == fold] for fold in range(6)]
    assert [len(fold) for fold in folds] == [4] * 6
    assert all(sum(actor % 2 for actor in fold) == 2 for fold in folds)


def test_each_fold_is_data_of_its_own(tmp_path: Path, own_cache):
    write(tmp_path, split="train")
    whole = DatasetSpec(name="x", task="erc", layout="folder", labels=("a", "b"), source=tmp_path)
    prints = [fingerprint_of(described(tmp_path, fold, by="speaker", k=4)) for fold in (None, 1, 2)]
    assert prints[0] == prints[1], "without a word the first fold is tested"
    assert len({fingerprint_of(whole), *prints}) == 3


@pytest.mark.parametrize(
    ("change", "folds", "match"),
    [
        ({"speaker": ""}, {"by": "speaker"}, r"'speaker' is missing.*line 1"),
        ({"session": None}, {"by": "session"}, r"'session' is missing"),
        ({}, {"by": "given"}, r"'fold' is missing"),
        ({}, {"by": "speaker", "k": 11}, "11 folds need as many different values of 'speaker'.*There are 10"),
        ({"speaker": "one"}, {"by": "speaker"}, "3 folds need"),
    ],
)
def test_a_table_that_cannot_be_parted_is_refused(tmp_path: Path, change: dict, folds: dict, match: str):
    write(tmp_path, **change)
    with pytest.raises(MsekitError, match=match):
        ids(described(tmp_path, **folds))


def test_a_fold_must_be_chosen_and_be_there(tmp_path: Path):
    write(tmp_path)
    spec = described(tmp_path, by="speaker", k=5)
    assert chosen_folds(spec, "all") == (1, 2, 3, 4, 5)
    assert chosen_folds(spec, "2,5") == (2, 5)
    for said in ("0", "6", "2,2", "every"):
        with pytest.raises(MsekitError, match="from 1 to 5"):
            chosen_folds(spec, said)
    with pytest.raises(MsekitError, match=r"has folds, and none is chosen.*--folds all"):
        chosen_folds(spec, None)
    with pytest.raises(MsekitError, match="has no folds"):
        chosen_folds(DatasetSpec(name="x", task="erc", layout="folder", labels=("a", "b")), "all")
    with pytest.raises(ValueError, match="`fold` is 6"):
        described(tmp_path, 6, by="speaker", k=5)


def test_the_shipped_descriptions_read_and_need_their_files(tmp_path: Path):
    shown = sorted((shipped("configs") / "datasets").glob("*.yaml"))
    files = [file for file in shown if "targets" not in yaml.safe_load(file.read_text())]
    assert {"emodb-folds", "ravdess-folds", "crema-d-folds", "iemocap-sessions"} == {file.stem for file in files}
    for file in files:
        with pytest.raises(MsekitError, match="needs its files"):
            resolve_dataset(file.stem)
        spec = resolve_dataset(file.stem, tmp_path)
        assert spec.name == file.stem
        assert spec.folds is not None
        assert spec.key_metric == "uar"
        assert spec.source == tmp_path.resolve()
        assert yaml.safe_load(file.read_text())["folds"]
