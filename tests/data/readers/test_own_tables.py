"""Tables of samples as users bring them: dialects of CSV, columns of other names, and nothing said twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import fingerprint_of, prepare
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.readers.open_source import open_source
from msekit.data.readers.rows import Row
from msekit.data.verify import verify
from msekit.errors import MsekitError
from msekit.json_file import keys_once

FRAMES = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS = {"labels": ("高兴", "愤怒")}


def table(header: str, mark: str = ",") -> str:
    lines = [f"太好了 {split}{mark}高兴{mark}{split}" for split in SPLITS]
    return "\n".join([header.replace(",", mark), *lines, f"不好{mark}愤怒{mark}train", ""])


def rows_of(spec: DatasetSpec) -> list[Row]:
    return [row for split in SPLITS for row in open_source(spec).rows(split)]


DIALECTS = [
    ("gb18030", ",", "text,label,split", {"encoding": "gb18030"}, "perhaps --encoding gb18030"),
    ("utf-16", ",", "text,label,split", {"encoding": "utf-16"}, "perhaps --encoding utf-16"),
    ("utf-16-le", ",", "text,label,split", {"encoding": "utf-16-le"}, "perhaps --encoding utf-16-le"),
    ("utf-8", ";", "text,label,split", {"delimiter": ";"}, "--delimiter ';'"),
    ("utf-8", "\t", "text,label,split", {"delimiter": "tab"}, "--delimiter 'tab'"),
    ("utf-8", "|", "text,label,split", {"delimiter": "|"}, r"--delimiter '\|'"),
    (
        "utf-8-sig",
        ",",
        "Utterance,Emotion,split",
        {"columns": "text=Utterance,label=Emotion"},
        "holds: Utterance, Emotion, split.*--columns text=Utterance,label=Emotion",
    ),
    ("utf-8", ",", "Text,LABEL,Split", {"columns": "text=Text,label=LABEL,split=Split"}, "--columns text=Text,"),
    (
        "utf-8",
        ",",
        " Text , LABEL,split",
        {"columns": "text=Text,label=LABEL"},
        "--columns text=Text,label=LABEL",
    ),
    (
        "utf-8",
        ",",
        "my utt,emo,data set",
        {"columns": "text=my utt,label=emo,split=data set"},
        "--columns text=NAME,label=NAME",
    ),
]


def test_a_mark_at_the_beginning_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    cells = table("text,label,split").replace("text,", '"text",', 1)
    (tmp_path / "set.csv").write_text(cells, encoding="utf-8-sig")
    for encoding in ("utf-8", "UTF8", "utf-8-sig", None):
        assert len(rows_of(resolve_dataset("own", tmp_path / "set.csv", LABELS | {"encoding": encoding}))) == 4


def test_many_keys_are_compared_at_once() -> None:
    pairs = [(str(number), number) for number in range(200_000)]
    with pytest.raises(ValueError, match="'199999' is given twice"):
        keys_once([*pairs, pairs[-1]])


@pytest.mark.parametrize(("encoding", "mark", "header", "options", "advice"), DIALECTS)
def test_every_dialect_is_read_once_it_is_named_and_the_option_is_offered(
    tmp_path: Path, encoding: str, mark: str, header: str, options: dict[str, str], advice: str
) -> None:
    source = tmp_path / "set.csv"
    source.write_bytes(table(header, mark).encode(encoding))
    outcome = verify(resolve_dataset("own", source, LABELS))
    with pytest.raises(MsekitError, match=advice):
        outcome.check()
    with pytest.raises(MsekitError, match=advice):
        prepare(resolve_dataset("own", source, LABELS), root=tmp_path / "root")
    command = ["data", "info", "own", "--source", str(source), "--labels", "高兴,愤怒", "--format", "json"]
    for key, value in options.items():
        command += [f"--{key}", value]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(result.stdout)["splits"]["train"]["labels"] == {"高兴": 1, "愤怒": 1}


def test_a_description_says_the_dialect_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.csv").write_bytes(table("Utterance,Emotion,split", ";").encode("gb18030"))
    text = "name: own\ntask: erc\nlayout: csv\nlabels: [高兴, 愤怒]\nsource: $PLACE/set.csv\nencoding: gb18030\n"
    text += "delimiter: ';'\ncolumns: {text: Utterance, label: Emotion}\n"
    (tmp_path / "own.YAML").write_text(text, encoding="utf-8")
    with pytest.raises(MsekitError, match=r"no variable for '\$PLACE/set\.csv'"):
        resolve_dataset(str(tmp_path / "own.YAML"))
    monkeypatch.setenv("PLACE", str(tmp_path))
    spec = resolve_dataset(str(tmp_path / "own.YAML"))
    assert [row.text for row in rows_of(spec)][-1] == "太好了 test"
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.YAML").write_text(text.replace("$PLACE", "~"), encoding="utf-8")
    home = resolve_dataset(str(tmp_path / "own.YAML"))
    assert fingerprint_of(home) == fingerprint_of(spec)
    assert resolve_dataset("own", Path("~/set.csv"), LABELS).source == tmp_path / "set.csv"


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("csv", {"encoding": "gbkk"}, "not 'gbkk'"),
        ("csv", {"delimiter": "::"}, "one character"),
        ("csv", {"columns": {"txt": "Utterance"}}, "Did you mean text"),
        ("csv", {"columns": {"text": "A", "label": "A"}}, "one column for two things"),
        ("folder", {"delimiter": ";"}, "`delimiter` is of CSV files"),
        ("erc-pickle", {"columns": {"text": "A"}}, "tables of one's own"),
    ],
)
def test_what_cannot_be_meant_is_refused(layout: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetSpec(name="own", task="erc", layout=layout, labels=("a", "b"), **options)


def test_a_column_that_no_row_has_is_named(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "高兴", "split": split} for split in SPLITS]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = resolve_dataset("own", tmp_path, LABELS | {"columns": {"speaker": "Who"}})
    with pytest.raises(MsekitError, match="no row has 'Who', which `columns` names for speaker"):
        rows_of(spec)


class TestTwice:
    @pytest.mark.parametrize("header", ["text,label,split,text", "label,text,text,split"])
    def test_columns_of_a_csv(self, tmp_path: Path, header: str) -> None:
        (tmp_path / "set.csv").write_text(f"{header}\na,joy,train,b\n")
        with pytest.raises(MsekitError, match=r"2 columns 'text': the \d\. and \d\. of the table"):
            rows_of(resolve_dataset("own", tmp_path / "set.csv", {"labels": ("joy", "anger")}))

    @pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
    def test_columns_of_an_arrow_table(self, tmp_path: Path, kind: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [pa.array(values) for values in (["a"], ["joy"], ["train"], ["anger"])]
        content = pa.Table.from_arrays(columns, names=["text", "label", "split", "label"])
        if kind == "parquet":
            pq.write_table(content, tmp_path / "samples.parquet")
        else:
            new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
            with new(str(tmp_path / "samples.arrow"), content.schema) as writer:
                writer.write_table(content)
        with pytest.raises(MsekitError, match=r"2 columns 'label': the 2\. and 4\."):
            rows_of(resolve_dataset("own", tmp_path, {"labels": ("joy", "anger")}))

    def test_keys_of_a_json_line(self, tmp_path: Path) -> None:
        line = '{"text": "a", "label": "joy", "split": "train", "label": "anger"}'
        (tmp_path / "samples.jsonl").write_text(line)
        with pytest.raises(MsekitError, match=r"key 'label' is given twice.*line 1"):
            rows_of(resolve_dataset("own", tmp_path, {"labels": ("joy", "anger")}))

    def test_tables_of_two_endings(self, tmp_path: Path) -> None:
        for split in SPLITS:
            (tmp_path / f"{split}.csv").write_text("text,label\na,joy\n")
            (tmp_path / f"{split}.tsv").write_text("text\tlabel\na\tanger\n")
        with pytest.raises(MsekitError, match=r"both train\.csv and train\.tsv"):
            open_source(resolve_dataset("own", tmp_path, {"labels": ("joy", "anger")}))


def folder_set(folder: Path, rows: list[dict[str, Any]]) -> DatasetSpec:
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return resolve_dataset("own", folder, {"labels": ("joy", "anger")})


ROWS = [{"id": "c1", "text": f"text {n}", "label": "joy", "split": split} for n, split in enumerate(SPLITS)]


class TestOneIdTwoRows:
    def test_different_rows_of_one_id_do_not_share_a_feature_file(self, tmp_path: Path) -> None:
        spec = folder_set(tmp_path, ROWS)
        np.save(tmp_path / "audio" / "c1.npy", FRAMES)
        with pytest.raises(MsekitError, match=r"rows have the id 'c1'.*c1\.npy.*line 2, and samples\.jsonl, line 1"):
            prepare(spec, root=tmp_path / "root")
        outcome = verify(spec)
        assert outcome.verdict == "unusable"
        assert sum(finding.samples for finding in outcome.findings if "c1.npy" in finding.what) == 2

    @pytest.mark.parametrize(
        "rows",
        [
            [row | {"audio": "features/x.npy"} for row in ROWS],  # each names its file
            [row | {"audio": FRAMES.tolist()} for row in ROWS],
            [row | {"text": "text"} for row in ROWS],  # one sample, several times
            [row | {"id": str(n)} for n, row in enumerate(ROWS)],
        ],
    )
    def test_others_may(self, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
        spec = folder_set(tmp_path, rows)
        (tmp_path / "features").mkdir()
        np.save(tmp_path / "features" / "x.npy", FRAMES)
        if "audio" not in rows[0]:
            for row in rows:
                np.save(tmp_path / "audio" / f"{row['id']}.npy", FRAMES)
        assert len(rows_of(spec)) == 3

    def test_rows_without_features_may_repeat_an_id(self, tmp_path: Path) -> None:
        assert len(rows_of(folder_set(tmp_path, ROWS))) == 3

    @pytest.mark.parametrize(
        ("value", "places"),
        [
            (None, r"audio/a\.npy, audio/a\.safetensors"),
            (FRAMES.tolist(), r"the column 'audio' of the row, audio/a\.npy"),
            ("features/x.npy", r"features/x\.npy, audio/a\.npy"),
        ],
    )
    def test_two_features_of_one_sample_are_refused(self, tmp_path: Path, value: Any, places: str) -> None:
        rows = [{"id": "a", "text": "t", "label": "joy", "split": split, "audio": value} for split in SPLITS]
        spec = folder_set(tmp_path, rows)
        (tmp_path / "features").mkdir()
        np.save(tmp_path / "features" / "x.npy", FRAMES)
        np.save(tmp_path / "audio" / "a.npy", FRAMES)
        if value is None:
            save_file({"audio": FRAMES}, tmp_path / "audio" / "a.safetensors")
        with pytest.raises(MsekitError, match=f"'audio' is there twice: {places}"):
            rows_of(spec)


class TestBatchesOfOne:
    @pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", "lists"])
    @pytest.mark.parametrize("axes", [1, 2])
    def test_leading_axes_of_length_one_are_dropped(self, tmp_path: Path, suffix: str, axes: int) -> None:
        frames = FRAMES.reshape(*(1,) * axes, 4, 3)
        rows = [{"id": split, "text": split, "label": "joy", "split": split} for split in SPLITS]
        if suffix == "lists":
            rows = [row | {"audio": frames.tolist()} for row in rows]
        spec = folder_set(tmp_path, rows)
        for row in rows:
            path = tmp_path / "audio" / f"{row['id']}{suffix}"
            if suffix == ".npy":
                np.save(path, frames)
            elif suffix == ".npz":
                np.savez(path, audio=frames)
            elif suffix == ".safetensors":
                save_file({"audio": frames}, path)
        for row in rows_of(spec):
            np.testing.assert_array_equal(row.audio, FRAMES)

    def test_other_shapes_are_one_finding_with_the_remedy(self, tmp_path: Path) -> None:
        rows = [{"id": f"c{n}", "text": f"t{n}", "label": "joy", "split": "train"} for n in range(30)]
        spec = folder_set(tmp_path, rows)
        for n in range(30):
            np.save(tmp_path / "audio" / f"c{n}.npy", np.zeros((2, n + 2, 3), np.float32))
        outcome = verify(spec)
        (finding,) = [finding for finding in outcome.findings if "shape" in finding.what]
        assert (finding.samples, finding.fix) == (30, "Save two axes, frames and then features, for each sample")
        assert "(2, 2, 3), (2, 3, 3)" in finding.what
