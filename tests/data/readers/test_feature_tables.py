"""Features as other extractors write them: OpenFace, py-feat and openSMILE tables, MERTools' folders, torch's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.catalogue import read_spec, resolve_dataset
from msekit.data.readers.feature_files import read_features
from msekit.data.readers.mertools import read_labels
from msekit.data.readers.own_folder import OwnSet
from msekit.errors import MsekitError

NAN = float("nan")
OPENFACE = """frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r
1, 0, 0.000, 0.98, 1, 0.1, 1.5
2, 0, 0.033, 0.20, 1, 0.2, 2.5
3, 0, 0.067, 0.98, 0, 0.3, 3.5
4, 0, 0.100, 0.80, 1, 0.4, 4.5
"""
PYFEAT = """,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU01,anger,input,frame
0,10,10,50,60,0.99,0.5,0.1,clip.mp4,0
1,90,10,80,90,0.97,0.6,0.2,clip.mp4,0
2,10,10,50,60,0.30,0.7,0.3,clip.mp4,1
3,,,,,,,,clip.mp4,2
"""
OPENSMILE = """name;frameTime;Loudness_sma3;F0semitone
'clip';0.00;0.5;20.5
'clip';0.01;0.6;0
"""
SMILE_FRAME = """file,start,end,Loudness_sma3
clip.wav,0 days 00:00:00,0 days 00:00:00.020,0.25
clip.wav,0 days 00:00:00.010,0 days 00:00:00.030,0.75
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPENFACE, [[0.1, 1.5], [NAN, NAN], [NAN, NAN], [0.4, 4.5]]),
        (PYFEAT, [[0.6, 0.2], [NAN, NAN], [NAN, NAN]]),
        (OPENSMILE, [[0.5, 20.5], [0.6, 0.0]]),
        (SMILE_FRAME, [[0.25], [0.75]]),
        ("1,2,3\n4,5,nan\n", [[1, 2, 3], [4, 5, NAN]]),
        ("a\tb\n1\t2\n\n", [[1, 2]]),
    ],
)
def test_tables_of_the_field_are_read(tmp_path: Path, text: str, expected: list[list[float]]) -> None:
    path = tmp_path / "clip.csv"
    path.write_text(text)
    assert np.array_equal(read_features(path, "vision"), np.array(expected, np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no columns of features"),
        ("frame,success\n1,1\n", "no columns of features"),
        ("a,b\n", "has no frames"),
        ("a,b\n1,2\n1\n", "frame 2 has 1 cells"),
        ("a,b\n1,angry\n", "'angry' in 'b' is no number"),
        ("frame,AU01\n1,0.1\n1,0.2\n", "picture 1 has several faces"),
        ("a,b\n" + "1,2\n" * 60, "more than 100 values"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "clip.csv"
    path.write_text(text)
    with pytest.raises(MsekitError, match=complaint):
        read_features(path, "audio", most=100)


def test_one_of_several_arrays_is_asked_for_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", hubert=np.ones((2, 3)), wavlm=np.zeros((4, 5)))
    with pytest.raises(MsekitError, match=r"holds hubert, wavlm, none of them 'audio'.*a?FILE#hubert"):
        read_features(tmp_path / "a.npz", "audio")
    assert read_features(Path(f"{tmp_path}/a.npz#wavlm"), "audio").shape == (4, 5)
    with pytest.raises(MsekitError, match="none of them 'clip'"):
        read_features(Path(f"{tmp_path}/a.npz#clip"), "audio")

    folder = tmp_path / "set"
    (folder / "audio").mkdir(parents=True)
    (tmp_path / "a.npz").rename(folder / "audio" / "c0.npz")
    row = {"id": "c0", "text": "Well.", "label": "sad", "split": "train", "audio": "audio/c0.npz#hubert"}
    (folder / "samples.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "set.yaml").write_text("{name: set, task: erc, layout: folder, labels: [sad, glad]}")
    source = OwnSet(read_spec(folder / "set.yaml"))
    (read,) = source.rows("train")
    assert read.audio is not None
    assert read.audio.shape == (2, 3)
    assert not source.unread().warnings


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_torch_files_are_read_and_never_executed(tmp_path: Path) -> None:
    frames_LD = torch.arange(6.0).view(3, 2)
    for name, content in {
        "plain": frames_LD,
        "half": frames_LD.bfloat16(),
        "grad": frames_LD.clone().requires_grad_(),
        "named": {"audio": frames_LD, "other": torch.ones(1)},
        "only": {"hubert": frames_LD},
    }.items():
        torch.save(content, tmp_path / f"{name}.pt")
        assert np.array_equal(read_features(tmp_path / f"{name}.pt", "audio"), frames_LD.numpy()), name
    torch.save(frames_LD, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert np.array_equal(read_features(tmp_path / "old.pth", "audio"), frames_LD.numpy())
    for name, content, complaint in (
        ("evil", Evil(tmp_path / "ran"), "not executed"),
        ("text", "words", "holds a str, not a tensor"),
        ("sparse", frames_LD.to_sparse(), "tensor of another layout"),
        ("huge", torch.zeros(1).expand(1 << 14, 1 << 14), "cannot be frames|has shape|more than"),
        ("complex", frames_LD.to(torch.complex64), "complex"),
    ):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(MsekitError, match=complaint):
            read_features(tmp_path / f"{name}.pt", "audio")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "plain.pt").read_bytes()[:200])
    with pytest.raises(MsekitError, match="cannot be read"):
        read_features(tmp_path / "cut.pt", "audio")


def test_mertools_becomes_a_set_of_ones_own(tmp_path: Path) -> None:
    train = {f"a{n}": {"emo": ("happy", "sad")[n % 2], "val": n / 10} for n in range(20)}
    np.savez_compressed(tmp_path / "label.npz", train_corpus=train, test1_corpus={"b0": {"emo": "sad", "val": -1}})
    (tmp_path / "hubert-UTT").mkdir()
    for name in [*train, "b0"]:
        np.save(tmp_path / "hubert-UTT" / f"{name}.npy", np.full(4, len(name), np.float32))
    (tmp_path / "hubert-UTT" / "a3.npy").unlink()
    (tmp_path / "transcription.csv").write_text("name,chinese\na0,你好\n", encoding="utf-8")
    arguments = ["data", "from-mertools", str(tmp_path / "label.npz"), "--output", str(tmp_path / "mer")]
    arguments += ["--audio", str(tmp_path / "hubert-UTT"), "--transcripts", str(tmp_path / "transcription.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.exception, done.output)
    source = OwnSet(read_spec(tmp_path / "mer" / "mer.yaml"))
    rows = {row.id: row for split in ("train", "valid", "test") for row in source.rows(split)}
    assert len(rows) == 21
    assert [row.id for row in source.rows("test")] == ["b0"]
    assert 1 <= len(list(source.rows("valid"))) <= 4
    assert (rows["a0"].text, rows["a1"].text) == ("你好", "")
    assert rows["a3"].audio is None
    assert np.array_equal(rows["a11"].audio, np.full((1, 4), 3, np.float32))
    both = resolve_dataset("mer-emotion-valence", tmp_path / "mer", {"validation": 0.1})
    emotions = both.targets["emotion"].classes
    answers = {row.id: row.label for split in ("train", "valid", "test") for row in OwnSet(both).rows(split)}
    assert answers["a3"] == (emotions.index("sad"), 0.3)
    assert answers["b0"] == (emotions.index("sad"), -1.0)


def test_features_that_lie_in_the_set_already_stay(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "label.npz", train_corpus={"a": {"emo": "happy"}}, test1_corpus={"b": {"emo": "sad"}}
    )
    folder = tmp_path / "set" / "audio"
    folder.mkdir(parents=True)
    for name in "ab":
        np.save(folder / f"{name}.npy", np.ones(4, np.float32))
    (tmp_path / "other").mkdir()
    for name in "ab":
        np.save(tmp_path / "other" / f"{name}.npy", np.zeros(4, np.float32))
    command = ["data", "from-mertools", str(tmp_path / "label.npz"), "--output", str(tmp_path / "set"), "--audio"]
    for source, value in ((folder, 1), (tmp_path / "other", 0), (tmp_path / "other", 0)):
        done = CliRunner().invoke(app, [*command, str(source)])
        assert done.exit_code == 0, (done.exception, done.output)
        assert np.load(source / "a.npy")[0] == np.load(folder / "a.npy")[0] == value
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "b.npy"]


def test_labels_that_are_programs_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "label.npz", train_corpus=np.array([Evil(tmp_path / "ran")], dtype=object))
    with pytest.raises(MsekitError, match="not executed"):
        read_labels(tmp_path / "label.npz")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "label.npz").write_bytes(b"no archive")
    with pytest.raises(MsekitError, match="cannot be read"):
        read_labels(tmp_path / "label.npz")
