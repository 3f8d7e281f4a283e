"""A table without a validation split: an option makes one, of whole speakers where there are any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import fingerprint_of, prepare
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.readers.open_source import open_source
from msekit.errors import MsekitError


def own(folder: Path, rows: list[dict[str, Any]], share: float | None = 0.2) -> DatasetSpec:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return resolve_dataset("own", folder, {"labels": ("joy", "anger"), "validation": share})


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    made = [{"text": f"text {n}", "label": ("joy", "anger")[n % 2], "split": "train"} | more for n in range(count)]
    return [*made, {"text": "last", "label": "joy", "split": "test"}]


def by_split(spec: DatasetSpec) -> dict[str, list[Any]]:
    return {split: list(open_source(spec).rows(split)) for split in SPLITS}


@pytest.mark.parametrize("kind", ["speaker", "dialogue_id"])
def test_rows_of_one_speaker_or_dialogue_stay_together(tmp_path: Path, kind: str) -> None:
    made = [row | {kind: f"s{n % 10}"} for n, row in enumerate(rows(100))]
    splits = by_split(own(tmp_path, made))
    assert [len(splits[split]) for split in SPLITS] == [80, 20, 1]
    train, valid = ({getattr(row, kind) for row in splits[split]} for split in ("train", "valid"))
    assert not train & valid
    assert len(valid) == 2


def test_the_choice_is_of_names_and_not_of_their_order(tmp_path: Path) -> None:
    made = rows(50)
    one, other = (by_split(own(tmp_path / str(n), content)) for n, content in enumerate((made, made[::-1])))
    assert {row.text for row in one["valid"]} == {row.text for row in other["valid"]}
    assert len(one["valid"]) == 10


@pytest.mark.parametrize("names", [("Ann", "Bob"), ("Bob", "Ann"), ("host", "guest"), ("guest", "host")])
def test_who_says_nearly_all_stays_in_train(tmp_path: Path, names: tuple[str, str]) -> None:
    made = [row | {"speaker": names[n % 20 == 0]} for n, row in enumerate(rows(80))]
    splits = by_split(own(tmp_path, made, 0.1))
    assert [len(splits[split]) for split in SPLITS] == [76, 4, 1]


def test_where_all_groups_are_too_large_the_smallest_is_taken_and_that_is_said(tmp_path: Path) -> None:
    made = [row | {"speaker": "Ann" if n < 48 else "Bob"} for n, row in enumerate(rows(80))]
    info = prepare(own(tmp_path / "set", made, 0.1), root=tmp_path / "root").info
    assert any("valid is 32 of train's 80 rows" in line and "asks for 0.1" in line for line in info.warnings)


def test_it_is_said_and_the_cache_is_another(tmp_path: Path) -> None:
    spec = own(tmp_path / "set", [row | {"speaker": f"s{n % 4}"} for n, row in enumerate(rows(40))])
    info = prepare(spec, root=tmp_path / "root").info
    assert "valid is 10 of train's 40 rows, those of 1 of 4 speakers" in info.warnings
    assert info.splits["valid"].samples == 10
    assert fingerprint_of(spec) != fingerprint_of(spec.model_copy(update={"validation": 0.3}))


def test_a_folder_of_train_and_test_csv(tmp_path: Path) -> None:
    lines = "\n".join(f"text {n},joy" for n in range(20))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{lines}\n")
    command = ["data", "info", "own", "--source", str(tmp_path), "--labels", "joy,anger", "--format", "json"]
    assert "validation: 0.1" in str(CliRunner().invoke(app, command).exception)
    result = CliRunner().invoke(app, [*command, "--validation", "0.25"])
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)["splits"]
    assert [found[split]["samples"] for split in SPLITS] == [15, 5, 20]


@pytest.mark.parametrize("name", ["valid.csv", "dev.csv", "valid.tsv"])
def test_a_file_of_validation_rows_is_not_passed_over(tmp_path: Path, name: str) -> None:
    for file in ("train.csv", "test.csv", name):
        (tmp_path / file).write_text("text,label\na,joy\nb,anger\n")
    with pytest.raises(MsekitError, match=f"there is a validation split already.*{name}"):
        by_split(resolve_dataset("own", tmp_path, {"labels": ("joy", "anger"), "validation": 0.1}))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([*rows(9), rows(1)[0] | {"split": "dev"}], "there is a validation split already.*line 11"),
        (rows(9, speaker="one"), "all rows of train have one speaker"),
        (rows(0), "no rows"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path: Path, made: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(MsekitError, match=message):
        by_split(own(tmp_path, made))


def test_without_it_the_way_out_is_told(tmp_path: Path) -> None:
    spec = own(tmp_path / "set", rows(9), None)
    with pytest.raises(MsekitError, match=r"split 'valid' is empty.*--validation 0\.1.*validation: 0\.1"):
        prepare(spec, root=tmp_path / "root")
    result = CliRunner().invoke(app, ["data", "verify", "own", "--source", str(spec.source), "--labels", "joy,anger"])
    assert "--validation 0.1 (or `validation: 0.1` in the description)" in str(result.exception)
