"""A folder of clips and a table → features → a plug-in → predictions on new clips, by the commands a user types."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("opensmile", reason="the extra msekit[media] is not installed")
pytest.importorskip("mediapipe", reason="the extra msekit[media] is not installed, or has no wheel for this Python")

import msekit
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.testing.drawn_clips import face, voice, write_mp4, write_wav

pytestmark = pytest.mark.slow


def made_clips(folder: Path, number: int) -> Path:
    """Glad clips smile and rise, sad ones frown and fall; the text says nothing. Returns the table."""
    folder.mkdir()
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "text", "label", "split"])
        for index in range(number):
            glad = index % 2 == 0
            pictures = [face(0.8 if glad else -0.8, x=150 + index % 5)] * 6
            name = f"clip{index}.mp4"
            write_mp4(folder / name, pictures, voice(0.6, rising=glad, seed=index))
            split = "valid" if index >= number - 4 else "test" if index >= number - 8 else "train"
            table.writerow([name, "Well.", "glad" if glad else "sad", split])
        (folder / "broken.mp4").write_bytes(b"not a clip")
        table.writerow(["broken.mp4", "Well.", "sad", "train"])
    return folder / "clips.csv"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, (SystemExit, MsekitError)):
        raise result.exception
    return 2 if isinstance(result.exception, MsekitError) else result.exit_code, result.output + str(result.exception)


def test_from_clips_to_predictions(tmp_path: Path, tiny: Path) -> None:
    table = made_clips(tmp_path / "clips", 40)
    out = tmp_path / "moods"
    options = ["--table", str(table), "--output", str(out), "--labels", "glad,sad", "--workers", "1"]
    code, shown = run("extract", str(tmp_path / "clips"), *options)
    assert code == 2, shown  # one clip was left out, and said to be
    assert len((out / "samples.jsonl").read_text().splitlines()) == 40
    code, shown = run("data", "info", str(out / "moods.yaml"))
    assert code == 0, shown

    sets = ["--set", "evaluation.bootstrap=0", "--set", "optim.patience=30", "--set", "optim.batch_size=8"]
    training = ["--backbone", "tiny-llama", "--dataset", str(out / "moods.yaml"), "--epochs", "30"]
    code, shown = run("train", *training, "--output", str(tmp_path / "run"), *sets)
    assert code == 0, shown
    report = json.loads((tmp_path / "run" / "seed-1111" / "report.json").read_text())
    assert report["metrics"]["acc"] == 1.0

    plug_in = msekit.load_run(tmp_path / "run")
    for glad in (True, False):
        new = write_mp4(
            tmp_path / f"new{glad}.mp4", [face(0.8 if glad else -0.8, x=160)] * 6, voice(0.6, glad, seed=99)
        )
        assert plug_in.predict("Well.", new, new).prediction == ("glad" if glad else "sad")
        code, shown = run("predict", str(tmp_path / "run"), "--text", "Well.", "--video", str(new), "--format", "json")
        assert code == 0, shown
        assert f'"prediction": "{"glad" if glad else "sad"}"' in shown

    silent = write_mp4(tmp_path / "silent.mp4", [face(0.8)] * 6, None)
    with pytest.raises(MsekitError, match="has no sound"):
        plug_in.predict("Well.", audio=silent)
    with pytest.raises(MsekitError, match="has no pictures"):
        plug_in.predict("Well.", vision=write_wav(tmp_path / "a.wav", voice(0.5, rising=True)))
    description = (tmp_path / "run" / "seed-1111" / "adapter.json").read_text()
    assert json.loads(description)["dataset"]["extractors"]["audio"]["name"] == "egemaps"

    other = tmp_path / "other"
    code, shown = run(
        "extract", str(tmp_path / "clips"), "--output", str(other), "--audio", "logmel", "--vision", "none"
    )
    assert code == 2, shown
    with pytest.raises(MsekitError, match=r"trained on audio features of egemaps .*these are of logmel"):
        plug_in.predict("Well.", audio=other / "audio" / "clip0.safetensors")
    assert plug_in.predict("Well.", audio=out / "audio" / "clip0.safetensors", vision=silent).prediction == "glad"
