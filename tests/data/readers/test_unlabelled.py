"""Rows without a label: those of test are predicted and count in no metric, others are refused with their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.data.readers.open_source import open_source
from msekit.errors import MsekitError
from msekit.evaluation.metrics import erc_metrics, msa_metrics
from msekit.runs.predictions import read_predictions

CLASSES = ("calm", "excited")
SMALL = ["--recipe", "kit", "--epochs", "1", "--set", "evaluation.bootstrap=20", "--set", "adapter.hidden=8"]


def rows(test: list[Any], labels: tuple[Any, ...] = CLASSES) -> list[dict[str, Any]]:
    """Eight rows of train, four of valid, and one of test for each label given; `...` is a row without the key."""
    splits = [*["train"] * 8, *["valid"] * 4, *["test"] * len(test)]
    made = [
        {"text": f"so {i}", "label": labels[i % 2], "split": split, "id": f"c{i}"} for i, split in enumerate(splits)
    ]
    for row, label in zip(made[12:], test, strict=True):
        row["label"] = label
    return [{key: value for key, value in row.items() if value is not ...} for row in made]


def written(folder: Path, made: list[dict[str, Any]], kind: str) -> Path:
    """The rows as a set of one's own."""
    folder.mkdir(exist_ok=True)
    if kind == "jsonl":
        (folder / "samples.jsonl").write_text("\n".join(json.dumps(row) for row in made), "utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(made), folder / "samples.parquet")
    elif kind == "csv":
        cells = [",".join(str(row.get(key) or "") for key in ("text", "label", "split")) for row in made]
        (folder / "own.csv").write_text("\n".join(["text,label,split", *cells]), "utf-8")
        return folder / "own.csv"
    else:  # three files, of which the last has no column of labels
        for split in ("train", "valid", "test"):
            keys = ["text"] if split == "test" else ["text", "label"]
            lines = [",".join(str(row[key]) for key in keys) for row in made if row["split"] == split]
            (folder / f"{split}.csv").write_text("\n".join([",".join(keys), *lines]), "utf-8")
    return folder


def own(source: Path, **options: Any) -> DatasetSpec:
    return resolve_dataset("own", source, options or {"labels": CLASSES})


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "three"])
def test_every_kind_of_table_may_leave_labels_of_test_out(tmp_path: Path, kind: str) -> None:
    labels: list[Any] = [None, None, None] if kind == "three" else [None, "excited", ... if kind == "jsonl" else None]
    spec = own(written(tmp_path / "set", rows(labels), kind))
    cache = prepare(spec, root=tmp_path / "root")
    known = [1.0 if label == "excited" else np.nan for label in labels]
    np.testing.assert_array_equal(cache.split("test").labels, known)
    expected = "none of test's 3 rows has a label" if kind == "three" else "2 of test's 3 rows have no label"
    assert any(expected in warning for warning in cache.info.warnings)


def test_nan_is_no_intensity(tmp_path: Path) -> None:
    made = rows([float("nan"), 0.5], labels=(-1.0, 1.0))
    spec = own(written(tmp_path / "set", made, "parquet"), range=(-1.0, 1.0))
    assert [np.isnan(row.label) for row in open_source(spec).rows("test")] == [True, False]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(("split", "place", "total"), [("train", 2, 8), ("valid", 9, 4)])
def test_other_rows_are_refused_with_count_and_remedy(
    tmp_path: Path, kind: str, split: str, place: int, total: int
) -> None:
    made = rows(["calm"])
    made[place]["label"] = made[place + 1]["label"] = None
    source = written(tmp_path / "set", made, kind)
    remedy = rf"'label' is missing.*2 of {split}'s {total} rows have no label: label them.*make them rows of test"
    with pytest.raises(MsekitError, match=remedy):
        prepare(own(source), root=tmp_path / "root")
    verified = CliRunner().invoke(app, ["data", "verify", "own", "--source", str(source), "--labels", "calm,excited"])
    assert verified.exception is not None
    assert f"error: {split}: 'label' is missing: 2 samples" in verified.output


def test_a_column_that_seems_to_be_the_label_is_not_passed_over(tmp_path: Path) -> None:
    folder = written(tmp_path / "set", rows([None]), "three")
    (folder / "test.csv").write_text("text,Emotion\nso,calm\n")
    with pytest.raises(MsekitError, match="--columns label=Emotion"):
        list(open_source(own(folder)).rows("test"))
    made = rows(["calm"])
    made[-1] = {"text": "so", "emotion": "calm", "split": "test"}
    with pytest.raises(MsekitError, match=r"'emotion' looks like it.*--columns label=emotion.*empty 'label'"):
        list(open_source(own(written(tmp_path / "other", made, "jsonl"))).rows("test"))


def test_what_is_unknown_counts_in_no_metric() -> None:
    truth, predicted = np.array([1.0, np.nan, 0.0, np.nan]), np.array([1, 1, 1, 0])
    assert erc_metrics(truth, predicted, CLASSES) == erc_metrics(truth[[0, 2]], predicted[[0, 2]], CLASSES)
    intensities = np.array([0.5, 0.1, -0.5, 0.3])
    assert msa_metrics(truth, intensities, "mosi") == msa_metrics(truth[[0, 2]], intensities[[0, 2]], "mosi")
    nothing = erc_metrics(truth[[1, 3]], predicted[[1, 3]], CLASSES)
    assert {name: value for name, value in nothing.items() if not isinstance(value, dict)} == dict.fromkeys(
        ("acc", "wf1", "macro_f1", "uar")
    )


@pytest.mark.slow
@pytest.mark.parametrize("test", [["calm", None, "excited", None], [None, None]])
def test_commands_run_with_them(tmp_path: Path, test: list[str | None]) -> None:
    source = written(tmp_path / "set", rows(test), "jsonl")
    (source / "audio").mkdir()
    for number in range(12 + len(test)):
        np.save(source / "audio" / f"c{number}.npy", np.random.default_rng(number).normal(size=(5, 3)))
    data = ["--dataset", "own", "--source", str(source), "--labels", "calm,excited"]
    runs = {"train": tmp_path / "run", "again": tmp_path / "again", "base": tmp_path / "base"}
    seeds = {name: folder / "seed-1111" for name, folder in runs.items()}
    known = sum(label is not None for label in test)

    def command(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    for name in ("train", "again"):
        output = command("train", "--backbone", "tiny-llama", *data, *SMALL, "--output", runs[name])
    assert output.count("of test's") == 1
    description = tmp_path / "own.yaml"
    description.write_text(f"name: own\ntask: erc\nlayout: folder\nlabels: [calm, excited]\nsource: {source}\n")
    command("baseline", "ef-lstm", "--dataset", description, "--epochs", "1", "--output", runs["base"])
    for name in ("train", "base"):
        lines = [json.loads(line) for line in (seeds[name] / "predictions-test.jsonl").read_text().splitlines()]
        assert [line.get("truth") for line in lines] == test
        assert all(line["prediction"] in CLASSES for line in lines)
        report = json.loads((seeds[name] / "report.json").read_text())
        assert (report["samples"], report["without_label"]) == (len(test), len(test) - known)
        assert (report["metrics"]["acc"] is None) == (known == 0)
        assert len(read_predictions(seeds[name], own(source)).truth) == known
    assert f"{len(test)} samples, {len(test) - known} of them without a label" in command("evaluate", seeds["train"])
    for study in ("--calibrate", "--robustness"):
        command("evaluate", seeds["train"], study)
    command("sensitivity", seeds["train"], "--orders", "1")
    command("report", runs["train"], "--format", "html", "--output", tmp_path / "page.html")
    command("data", "info", description)
    done = CliRunner().invoke(app, ["compare", str(runs["train"]), str(runs["again"])])
    assert (done.exception is None) if known else "no test sample has a label" in str(done.exception)
