"""Label files of EmoBox and MERTools: a table of clips with folds or splits; placeholders are no labels."""

from __future__ import annotations

import csv
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.readers.label_files import emobox_rows, mertools_rows
from msekit.errors import MsekitError


def emobox(folder: Path) -> Path:
    """Two folds; the first also under its older name."""
    for fold, clips in ((1, "ab"), (2, "cd")):
        lines = [
            {"key": f"x-{clip}", "dataset": "x", "wav": f"wav/{clip}.wav", "type": "raw", "emo": emo, "channel": 1}
            for clip, emo in zip(clips, ("happy", "Neutral"), strict=True)
        ]
        place = folder / f"fold_{fold}"
        place.mkdir(parents=True)
        for name in (f"x_test_fold_{fold}.jsonl", f"x_test_fold{fold}.jsonl", f"x_train_fold_{fold}.jsonl"):
            (place / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "label_map.json").write_text(json.dumps({"happy": "Happy", "Neutral": "Neutral"}))
    return folder


def mertools(folder: Path) -> tuple[Path, Path]:
    train = {"a": {"emo": "happy", "val": 0.5}, "b": {"emo": "sad", "val": np.float64(-1.0)}}
    test = {"c": {"emo": "sad", "val": 0}}
    kept = {"d": {"emo": "neutral", "val": -10}}
    np.savez_compressed(folder / "label-6way.npz", train_corpus=train, test1_corpus=test, test2_corpus=kept)
    texts = "name,chinese,english\na,好,well\nb,不,no\nc,嗯,hm\n"
    (folder / "transcription.csv").write_text(texts, encoding="utf-8")
    return folder / "label-6way.npz", folder / "transcription.csv"


def test_emobox_gives_each_clip_the_fold_that_tests_it(tmp_path: Path):
    rows = emobox_rows(emobox(tmp_path))
    assert [(row["id"], row["fold"], row["label"]) for row in rows] == [
        ("x-a", "1", "Happy"),
        ("x-b", "1", "Neutral"),
        ("x-c", "2", "Happy"),
        ("x-d", "2", "Neutral"),
    ]
    assert rows[0]["file"] == "wav/a.wav"


def test_mertools_gives_splits_and_leaves_out_what_has_no_labels(tmp_path: Path):
    labels, texts = mertools(tmp_path)
    rows, left_out = mertools_rows(labels, texts, "emo", ".mp4")
    assert left_out == ["test2_corpus"]
    assert [(row["file"], row["text"], row["label"], row["split"]) for row in rows] == [
        ("a.mp4", "well", "happy", "train"),
        ("b.mp4", "no", "sad", "train"),
        ("c.mp4", "hm", "sad", "test"),
    ]
    rows, _ = mertools_rows(labels, None, "val", ".wav")
    assert [row["label"] for row in rows] == ["0.5", "-1", "0"]


def test_a_session_is_read_from_iemocaps_names(tmp_path: Path):
    whole = {"Ses01F_impro01_F000": {"emo": "ang", "val": 2.5}, "Ses02M_script01_M001": {"emo": "sad", "val": 2.0}}
    np.savez_compressed(tmp_path / "label.npz", whole_corpus=whole)
    rows, _ = mertools_rows(tmp_path / "label.npz", None, "emo", ".wav")
    assert [row["session"] for row in rows] == ["Ses01", "Ses02"]


@pytest.mark.parametrize("toolkit", ["emobox", "mertools"])
def test_the_command_writes_the_table_that_extract_takes(tmp_path: Path, toolkit: str):
    output = tmp_path / "clips.csv"
    if toolkit == "emobox":
        arguments = [toolkit, emobox(tmp_path / "x"), "--output", output]
    else:
        labels, texts = mertools(tmp_path)
        arguments = [toolkit, labels, "--texts", texts, "--output", output]
    done = CliRunner().invoke(app, ["data", "clips", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    from msekit.media.table import read_table

    clips = tmp_path / "clips"
    for row in rows:
        (clips / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        (clips / row["file"]).touch()
    read = read_table(output, clips)
    assert [clip.label for clip in read] == [row["label"] for row in rows]
    assert [clip.fold for clip in read] == (["1", "1", "2", "2"] if toolkit == "emobox" else [None] * 3)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_in_a_label_file_is_executed(tmp_path: Path):
    value = np.empty((), dtype=object)
    value[()] = Evil()
    np.savez(tmp_path / "label.npz", train_corpus=value)
    with pytest.raises(MsekitError):
        mertools_rows(tmp_path / "label.npz", None, "emo", ".mp4")
    with zipfile.ZipFile(tmp_path / "bare.npz", "w") as archive:
        archive.writestr("train_corpus.npy", pickle.dumps({"a": 1}))
    with pytest.raises(MsekitError, match="cannot be read"):
        mertools_rows(tmp_path / "bare.npz", None, "emo", ".mp4")


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(MsekitError, match="no label files of EmoBox"):
        emobox_rows(tmp_path)
    labels, texts = mertools(tmp_path)
    texts.write_text("name,english\na,well\n")
    with pytest.raises(MsekitError, match="no text for 'b'"):
        mertools_rows(labels, texts, "emo", ".mp4")
    texts.write_text("id,words\na,well\n")
    with pytest.raises(MsekitError, match=r"no columns `name` and a text.*id, words"):
        mertools_rows(labels, texts, "emo", ".mp4")
    np.savez_compressed(tmp_path / "one.npz", train_corpus={"a": {"val": 1.0}})
    with pytest.raises(MsekitError, match=r"'emo' is missing.*train_corpus, a"):
        mertools_rows(tmp_path / "one.npz", None, "emo", ".mp4")
    np.savez_compressed(tmp_path / "none.npz", test1_corpus={"a": {"emo": "neutral", "val": -10}})
    with pytest.raises(MsekitError, match="no clip has a label"):
        mertools_rows(tmp_path / "none.npz", None, "emo", ".mp4")
    np.savez_compressed(tmp_path / "numbers.npz", train_corpus=np.ones(3))
    with pytest.raises(MsekitError, match="not a corpus"):
        mertools_rows(tmp_path / "numbers.npz", None, "emo", ".mp4")


def test_both_commands_read_the_same_texts_and_know_placeholders(tmp_path: Path):
    from msekit.data.readers.mertools import write_own_folder

    labels, texts = mertools(tmp_path)
    for language, said in (("en", "well"), ("zh", "好")):
        arguments = ["mertools", str(labels), "--texts", str(texts), "--language", language]
        table = tmp_path / f"{language}.csv"
        done = CliRunner().invoke(app, ["data", "clips", *arguments, "--output", str(table)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        with table.open(encoding="utf-8", newline="") as file:
            assert next(csv.DictReader(file))["text"] == said
        path, _ = write_own_folder(labels, {}, tmp_path / language, transcripts=texts, language=language)
        assert json.loads((path.parent / "samples.jsonl").read_text("utf-8").splitlines()[0])["text"] == said
    with pytest.raises(MsekitError, match=r"'test2_corpus' has placeholders.*--test"):
        write_own_folder(labels, {}, tmp_path / "none", test="test2")
    texts.write_text("name,chinese\na,x\n")
    with pytest.raises(MsekitError, match="--language zh"):
        mertools_rows(labels, texts, "emo", ".mp4")


@pytest.mark.parametrize("kind", ["version", "shape", "dtype", "short", "packing", "encrypted"])
def test_an_archive_of_another_kind_is_one_line(tmp_path: Path, kind: str):
    from msekit.data.readers.mertools import read_labels

    path = tmp_path / "label.npz"
    arrays = {"shape": np.empty(2, dtype=object), "dtype": np.ones(1)}
    np.savez(path, train_corpus=arrays.get(kind, np.array({"a": {"emo": "sad"}}, dtype=object)))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("train_corpus.npy")
    content = content[:6] + b"\x09" + content[7:] if kind == "version" else content
    content = content[:4] if kind == "short" else content
    way = zipfile.ZIP_BZIP2 if kind == "packing" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", way) as archive:
        archive.writestr("train_corpus.npy", content)
    if kind == "encrypted":
        packed = bytearray(path.read_bytes())
        packed[6] |= 1  # the flag, in the member's header and in the directory
        packed[packed.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(packed)
    with pytest.raises(MsekitError):
        read_labels(path)
