"""Class names that are numbers: one reading for every kind of file, and a refusal where two are possible."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msekit.data.cache.cache import fingerprint_of, prepare
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.readers.labels import label_of
from msekit.data.readers.open_source import open_source
from msekit.errors import MsekitError

KINDS = ("jsonl", "parquet", "arrow", "csv")


def written(folder: Path, kind: str, labels: list[Any]) -> Path:
    """The same labels in every split, as a table of one kind; its path as `--source` takes it."""
    rows = [{"text": f"text {n}", "label": label, "split": split} for split in SPLITS for n, label in enumerate(labels)]
    if kind == "jsonl":
        (folder / "samples.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif kind == "csv":
        with (folder / "set.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({key: [row[key] for row in rows] for key in rows[0]})
        if kind == "parquet":
            pq.write_table(table, folder / "samples.parquet")
        else:
            with pa.ipc.new_file(str(folder / "samples.arrow"), table.schema) as writer:
                writer.write_table(table)
    return folder / "set.csv" if kind == "csv" else folder


def read(source: Path, names: tuple[str, ...]) -> list[str]:
    spec = resolve_dataset("own", source, {"labels": names})
    return [names[int(row.label)] for row in open_source(spec).rows("train")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("names", "labels", "meant"),
    [
        (("1", "0"), [1, 0, 1], ["1", "0", "1"]),
        (("1", "2", "3", "4", "5"), [3, 5, 1], ["3", "5", "1"]),
        (("-1", "0", "1"), [-1, 0, 1], ["-1", "0", "1"]),
        (("1", "2"), [2.0, 1.0], ["2", "1"]),
        (("0.5", "1"), [0.5, 1.0], ["0.5", "1"]),
        (("false", "true"), [True, False], ["true", "false"]),
        (("calm", "glad"), [1, 0], ["glad", "calm"]),
        (("0", "glad"), [0, 1], ["0", "glad"]),
    ],
)
def test_one_reading_in_every_kind_of_file(
    tmp_path: Path, kind: str, names: tuple[str, ...], labels: list[Any], meant: list[str]
) -> None:
    if kind == "csv" and isinstance(labels[0], bool):
        labels = [str(label).lower() for label in labels]
    assert read(written(tmp_path, kind, labels), names) == meant


@pytest.mark.parametrize("kind", KINDS)
def test_where_two_readings_are_possible_it_is_refused_and_the_way_out_named(tmp_path: Path, kind: str) -> None:
    source, names = written(tmp_path, kind, [1]), ("1", "joy")
    with pytest.raises(MsekitError, match=r"label 1 can be read as '1' or 'joy'.*aliases: \{\"1\": \"1\"\}"):
        read(source, names)
    told = resolve_dataset("own", source, {"labels": names}).model_copy(update={"aliases": {"1": "joy"}})
    assert [row.label for row in open_source(told).rows("train")] == [1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_no_name_is_no_place_either(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MsekitError, match=r"unknown label .*1, 2 \(these are names"):
        read(written(tmp_path, kind, [0]), ("1", "2"))


def test_names_of_one_number_are_told_apart_by_their_text_alone() -> None:
    spec = DatasetSpec(name="own", task="erc", layout="csv", labels=("01", "1.0", "2"))
    assert [label_of(spec, text, "x", "label") for text in ("01", "1.0", "2.0")] == [0, 1, 2]
    with pytest.raises(MsekitError, match=r"can be read as '01' or '1\.0'"):
        label_of(spec, np.float64(1.0), "x", "label")


def test_aliases_lead_to_names_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text('{name: own, task: erc, layout: csv, labels: [a, b], aliases: {"1": bb}}')
    with pytest.raises(MsekitError, match="'bb' is none of `labels`"):
        resolve_dataset(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("label", ["Joy", " joy", "JOY "])
def test_a_label_of_other_case_or_spaces_is_offered_the_near_one(label: str) -> None:
    spec = DatasetSpec(name="own", task="erc", layout="csv", labels=("joy", "anger"))
    with pytest.raises(MsekitError, match=f'Did you mean \'joy\'.*aliases: {{"{label}": "joy"}}'):
        label_of(spec, label, "x", "label")


def test_a_cache_of_the_other_reading_is_not_used(tmp_path: Path) -> None:
    """Fingerprints of sets whose names are words stay those of earlier caches."""
    source = written(tmp_path, "jsonl", [1, 0])
    words, numbers = (resolve_dataset("own", source, {"labels": names}) for names in (("a", "b"), ("1", "0")))
    assert prepare(numbers, root=tmp_path / "root").info.splits["train"].label_counts == {"1": 1, "0": 1}
    assert fingerprint_of(words) != fingerprint_of(numbers)
