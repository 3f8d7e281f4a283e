"""Features that nobody reads: named wherever a set is looked at, refused where none is used at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import fingerprint_of, prepare
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.verify import verify
from msekit.errors import MsekitError

FRAMES = np.arange(12, dtype=np.float32).reshape(4, 3)


def own(folder: Path, **row: Any) -> DatasetSpec:
    """Six samples c0 to c5, two of each split."""
    folder.mkdir(exist_ok=True, parents=True)
    rows = [
        {"id": f"c{n}", "text": f"text {n}", "label": "joy" if n < 3 else "anger", "split": SPLITS[n % 3]} | row
        for n in range(6)
    ]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return resolve_dataset("own", folder, {"labels": ("joy", "anger")})


def saved(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".npy":
            with path.open("wb") as file:
                np.save(file, FRAMES)
        else:
            path.write_bytes(b"whatever")


def refused_by_all(spec: DatasetSpec, message: str) -> None:
    outcome = verify(spec)
    assert outcome.verdict == "unusable"
    with pytest.raises(MsekitError, match=message):
        outcome.check()
    with pytest.raises(MsekitError, match=message):
        prepare(spec)
    command = ["data", "info", "own", "--source", str(spec.source), "--labels", "joy,anger"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, MsekitError)
    command = ["train", "--backbone", "tiny-llama", "--dataset", "own", *command[3:], "--output", f"{spec.source}/x"]
    result = CliRunner().invoke(app, [*command, "--epochs", "1"])
    assert isinstance(result.exception, MsekitError)
    assert str(result.exception).startswith("no sample has")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [f"audio/c{n}.mat" for n in range(6)],
            r"audio/ holds 6 files .*c0\.mat.*\.mat is not read: save arrays as \.npy",
        ),
        ([f"audio/{n:04}.npy" for n in range(6)], r"0000\.npy, .*the ids are c0"),
        (["vision/c0.wav"], r"vision/ holds 1 file .*\.wav: make features with msekit extract"),
        (["features/c0.npy"], r"no sample has audio or vision, though features/ holds 1 file"),
        (["audio/train/c0.npy"], r"train/c0\.npy"),
        (["Audio/c0.npy"], r"no sample has audio, though Audio/ holds 1 file that is not read"),
        (["video/c0.npy", "video/c1.npy"], r"no sample has vision, though video/ holds 2 files"),
    ],
)
def test_where_no_file_is_used_the_set_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    spec = own(tmp_path / "set")
    saved(tmp_path / "set", *names)
    refused_by_all(spec, message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["audio/utt_0.npy"], r"audio/ holds 1 file that belongs to no sample: utt_0\.npy \(.*the ids are c0"),
        (["audio/c1.mat"], r"audio/ holds 1 file .*c1\.mat \(\.mat is not read"),
        (["features/old.npz"], r"features/ holds 1 file .*old\.npz"),
        (["stray.npy"], r"the folder of the samples holds 1 file that is not read: stray\.npy"),
        (["embeddings/c0.npy"], r"embeddings/ holds 1 file that is not read"),
        (["faces/mean.npy"], r"faces/ holds 1 file that is not read"),
        (["voice/model.safetensors"], r"voice/ holds 1 file that is not read"),
        (["shared/adapter.safetensors"], None),
        (["llm/model.safetensors", "llm/config.json"], None),
        (["audio/c1.NPY"], None),
        (["audio/.DS_Store", "audio/README.txt", "runs/x/adapter.safetensors"], None),
    ],
)
def test_some_files_that_nobody_reads_are_a_warning(tmp_path: Path, names: list[str], message: str | None) -> None:
    folder = tmp_path / "set"
    spec = own(folder)
    saved(folder, "audio/c0.npy", *names)
    found = [finding.what for finding in verify(spec).findings if " hold" in finding.what]
    info = prepare(spec, root=tmp_path / "root").info
    assert found == [warning for warning in info.warnings if " hold" in warning]
    assert bool(found) == (message is not None)
    assert message is None or re.search(message, found[0]), found


def test_a_file_that_comes_later_is_named_although_the_cache_is_there(tmp_path: Path) -> None:
    spec = own(tmp_path)
    saved(tmp_path, "audio/c0.npy")
    assert not any("holds" in warning for warning in prepare(spec, root=tmp_path / "root").info.warnings)
    saved(tmp_path, "audio/c1.mat")
    assert any("c1.mat" in warning for warning in prepare(spec, root=tmp_path / "root").info.warnings)


@pytest.mark.parametrize("name", ["shared/adapter.safetensors", "faces/mean.npy", "stray.npy"])
def test_what_lies_beside_the_folders_of_features_makes_no_other_set(tmp_path: Path, name: str) -> None:
    spec = own(tmp_path)
    saved(tmp_path, "audio/c0.npy")
    before = fingerprint_of(spec)
    saved(tmp_path, name)
    assert fingerprint_of(spec) == before


@pytest.mark.parametrize("name", ["audio/c0.wav", "features/c9.npy", "Audio/c0.npy"])
def test_a_modality_that_the_set_is_said_not_to_have_is_no_reason_to_refuse(tmp_path: Path, name: str) -> None:
    spec = own(tmp_path).model_copy(update={"audio_width": 0, "vision_width": 0})
    saved(tmp_path, name)
    assert verify(spec).verdict == "usable with warnings"


def test_a_folder_that_cannot_be_listed_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = own(tmp_path)
    saved(tmp_path, "audio/c0.npy", "private/c0.npy")
    listed = Path.iterdir

    def guarded(path: Path) -> Iterator[Path]:
        if path.name == "private":
            raise PermissionError(path)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    assert not any("private" in finding.what for finding in verify(spec).findings)


def test_a_row_that_is_refused_for_something_else_still_owns_its_file(tmp_path: Path) -> None:
    spec = own(tmp_path, label="rage")
    saved(tmp_path, *(f"audio/c{n}.npy" for n in range(6)))
    assert [finding.what for finding in verify(spec).findings if " holds " in finding.what] == []


def test_so_does_one_whose_other_features_are_there_twice(tmp_path: Path) -> None:
    spec = own(tmp_path)
    saved(tmp_path, *(f"{key}/c{n}.npy" for n in range(6) for key in ("audio", "vision")), "audio/c0.npz")
    found = [finding.what for finding in verify(spec).findings]
    assert any("twice" in what for what in found)
    assert not [what for what in found if " holds " in what]


def test_a_csv_says_that_it_reads_texts_alone(tmp_path: Path) -> None:
    lines = [f"text {n},joy,{split},audio/c{n}.npy" for n, split in enumerate(SPLITS)]
    (tmp_path / "set.csv").write_text("text,label,split,audio\n" + "\n".join(lines))
    saved(tmp_path, "audio/c0.npy")
    spec = resolve_dataset("own", tmp_path / "set.csv", {"labels": ("joy", "anger")})
    (warning,) = [warning for warning in prepare(spec, root=tmp_path / "root").info.warnings if "not read" in warning]
    assert "the column 'audio' and audio/ are not read. A CSV holds texts alone" in warning


def test_a_column_that_is_called_like_features_is_named_and_can_be_read(tmp_path: Path) -> None:
    spec = own(tmp_path, video=FRAMES.tolist())
    assert any("--columns vision=video" in finding.what for finding in verify(spec).findings)
    told = resolve_dataset("own", tmp_path, {"labels": ("joy", "anger"), "columns": {"vision": "video"}})
    assert prepare(told, root=tmp_path / "root").info.vision.width == 3
