"""Recordings without typed words: where somebody speaks, what is said, and the way to a plotted timeline.

The speech is espeak-ng's, the transcriber a real Whisper (`MSEKIT_TEST_WHISPER` names its folder, in CTranslate2's
format); what is not installed skips.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("imageio_ffmpeg", reason="the extra msekit[media] is not installed")

from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.media import transcribe
from msekit.media.decode import SAMPLE_RATE, has_pictures, sound
from msekit.media.records import Shard, array_script
from msekit.media.segments import cut, pieces_of
from msekit.media.table import Clip
from msekit.testing.drawn_clips import face, voice, write_mp4, write_wav

SENTENCES = (
    "The weather is very nice today and we went to the river",
    "My brother wants to buy a new house in the city",
    "She opened the window and looked at the garden",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """(S,) sound with silences, and where each sentence stands in it, in seconds."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    folder, parts, places, at = tmp_path_factory.mktemp("spoken"), [], [], 0.0
    for number, sentence in enumerate(SENTENCES):
        subprocess.run(
            ["espeak-ng", "-v", "en-us", "-s", "130", "-w", str(folder / f"{number}.wav"), sentence], check=True
        )
        words_S = sound(folder / f"{number}.wav")
        loud = np.flatnonzero(np.abs(words_S) > 0.01)
        words_S = words_S[loud[0] : loud[-1]]
        silence = 1.0 + 0.5 * number
        places.append((at + silence, at + silence + len(words_S) / SAMPLE_RATE))
        parts += [np.zeros(int(silence * SAMPLE_RATE), np.float32), words_S]
        at = places[-1][1]
    return np.concatenate([*parts, np.zeros(SAMPLE_RATE, np.float32)]), places


@pytest.fixture(scope="module")
def whisper() -> str:
    """A real Whisper's folder."""
    pytest.importorskip("faster_whisper", reason="the extra msekit[speech] is not installed")
    folder = os.environ.get("MSEKIT_TEST_WHISPER")
    if not folder:
        pytest.skip("MSEKIT_TEST_WHISPER names no folder of a Whisper in CTranslate2's format")
    return folder


def test_speech_is_found_within_a_fifth_of_a_second(spoken) -> None:
    pytest.importorskip("silero_vad", reason="the extra msekit[speech] is not installed")
    samples_S, places = spoken
    pieces = pieces_of(samples_S)
    assert len(pieces) == len(places)
    for piece, (start, end) in zip(pieces, places, strict=True):
        assert (piece.start, piece.end) == pytest.approx((start, end), abs=0.2)
    assert not pieces_of(np.zeros(3 * SAMPLE_RATE, np.float32))


def test_a_film_is_cut_into_clips_once(spoken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("silero_vad", reason="the extra msekit[speech] is not installed")
    samples_S, places = spoken
    seconds = len(samples_S) / SAMPLE_RATE
    film = write_mp4(tmp_path / "film.mp4", [face(0.5)] * int(10 * seconds), samples_S)
    assert has_pictures(film)
    pieces = cut(Clip("film", film), tmp_path / "cut")
    assert [piece.id for piece in pieces] == ["film-0000", "film-0001", "film-0002"]
    for piece, (start, end) in zip(pieces, places, strict=True):
        assert (piece.start, piece.end) == pytest.approx((start, end), abs=0.25)
        assert len(sound(piece.path)) / SAMPLE_RATE == pytest.approx(piece.end - piece.start, abs=0.1)
        assert has_pictures(piece.path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").iterdir()}
    monkeypatch.setattr("msekit.media.segments.pieces_of", None)  # is not asked again
    assert cut(Clip("film", film), tmp_path / "cut") == pieces
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").iterdir()} == before

    alone = write_wav(tmp_path / "alone.wav", voice(0.5, rising=True))
    assert not has_pictures(alone)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(MsekitError, match="cannot be decoded"):
        cut(Clip("bad", tmp_path / "bad.mp4"), tmp_path / "cut")


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9 ]", "", text.lower()).split()


def word_errors(said: list[str], heard: list[str]) -> int:
    """Levenshtein's distance in words."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, start=1):
        last, row[0] = row[0], number
        for place, other in enumerate(heard, start=1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (word != other))
    return row[-1]


def test_a_real_whisper_hears_what_is_said(spoken, whisper: str, tmp_path: Path) -> None:
    samples_S, places = spoken
    record, errors = transcribe.transcriber(whisper, "en"), 0
    for number, (start, end) in enumerate(places):
        piece_S = samples_S[int((start - 0.2) * SAMPLE_RATE) : int((end + 0.2) * SAMPLE_RATE)]
        heard = transcribe.transcript(write_wav(tmp_path / f"{number}.wav", piece_S), record)
        errors += word_errors(words(SENTENCES[number]), words(heard))
    total = sum(len(words(sentence)) for sentence in SENTENCES)
    print(f"word error rate {errors}/{total}")  # noqa: T201
    assert errors / total <= 0.1  # base makes none of 31 on this voice


def test_texts_are_filled_once_and_given_ones_stay(spoken, whisper: str, tmp_path: Path, monkeypatch) -> None:
    samples_S, ((start, end), *_) = spoken
    path = write_wav(tmp_path / "a.wav", samples_S[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)])
    clips = [Clip("given", path, "Typed."), Clip("empty", path), Clip("mute", tmp_path / "none.wav")]
    record, complaints = transcribe.transcriber(whisper, "en"), []
    tell = lambda name, why: complaints.append((name, why))  # noqa: E731
    filled = transcribe.filled(clips, record, tmp_path / "out", lambda _: None, tell)
    assert filled[0].text == "Typed."
    assert "river" in filled[1].text
    assert complaints == [("mute", "no such clip")]
    monkeypatch.setattr(transcribe, "transcript", None)  # is not asked again
    again = transcribe.filled(clips[:2], record, tmp_path / "out", lambda _: None, tell, Shard(0, 2))
    assert [clip.text for clip in again] == [clip.text for clip in filled[:2]]


def test_from_a_film_to_a_timeline(spoken, whisper: str, tmp_path: Path, tiny) -> None:
    """Extract, train and predict on films of which nobody typed a word."""
    pytest.importorskip("silero_vad", reason="the extra msekit[speech] is not installed")
    pytest.importorskip("matplotlib", reason="the extra msekit[plot] is not installed")
    samples_S, places = spoken
    (tmp_path / "clips").mkdir()
    lines = ["file,text,label,split"]
    for number in range(8):
        start, end = places[number % 3]
        piece_S = samples_S[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        write_wav(tmp_path / "clips" / f"c{number}.wav", piece_S)
        split = ("train", "train", "valid", "test")[number % 4]
        lines.append(f"c{number}.wav,,{('glad', 'sad')[number % 2]},{split}")
    (tmp_path / "clips" / "clips.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "talk"
    command = [
        "extract",
        str(tmp_path / "clips"),
        "--table",
        str(tmp_path / "clips" / "clips.csv"),
        "--audio",
        "logmel",
    ]
    command += [
        "--vision",
        "none",
        "--labels",
        "glad,sad",
        "--transcribe",
        whisper,
        "--output",
        str(out),
        "--workers",
        "1",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.exception, done.output)
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert all(row["text"] for row in rows)
    command = ["train", "--backbone", "tiny-llama", "--dataset", str(out / "talk.yaml"), "--epochs", "1"]
    command += ["--recipe", "kit", "--set", "evaluation.bootstrap=0", "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.exception, done.output)

    film = write_mp4(tmp_path / "film.mp4", [face(0.5)] * int(10 * len(samples_S) / SAMPLE_RATE), samples_S)
    run = str(tmp_path / "run")
    done = CliRunner().invoke(app, ["predict", run, "--video", str(film), "--format", "json"])
    assert done.exit_code == 0, (done.exception, done.output)
    assert "heard: " in done.output
    answers, plot = tmp_path / "answers.jsonl", tmp_path / "timeline.png"
    command = ["predict", run, "--video", str(film), "--segment", "vad", "--output", str(answers), "--plot", str(plot)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.exception, done.output)
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [record["start"] for record in records] == pytest.approx([start for start, _ in places], abs=0.2)
    assert all(sum(record["scores"].values()) == pytest.approx(1) for record in records)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_what_is_no_transcriber_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MsekitError, match="Did you mean base"):
        transcribe.transcriber("bass")
    with pytest.raises(MsekitError, match=r"no config\.json: not a transcriber"):
        transcribe.transcriber(str(tmp_path))


def test_shards_share_the_work_and_are_joined_without_repeating_it(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(5):
        write_wav(clips / f"c{number}.wav", voice(0.4, rising=True, seed=number))
    base = ["extract", str(clips), "--output", str(tmp_path / "out"), "--audio", "logmel", "--vision", "none"]
    base += ["--workers", "1"]
    for number in range(2):
        done = CliRunner().invoke(app, [*base, "--shard", f"{number}/2"])
        assert done.exit_code == 0, (done.exception, done.output)
    assert not (tmp_path / "out" / "samples.jsonl").exists()
    features = tmp_path / "out" / "audio"
    before = {path: path.stat().st_mtime_ns for path in features.iterdir()}
    assert len(before) == 5
    done = CliRunner().invoke(app, base)
    assert done.exit_code == 0, (done.exception, done.output)
    assert "5 clips are extracted already" in done.output
    assert {path: path.stat().st_mtime_ns for path in features.iterdir()} == before
    assert len((tmp_path / "out" / "samples.jsonl").read_text().splitlines()) == 5
    for text in ("2/2", "a/2", "1"):
        assert "cannot be read" in str(CliRunner().invoke(app, [*base, "--shard", text]).exception)


def test_the_array_script_is_the_command_in_shards(tmp_path: Path) -> None:
    text = array_script(["extract", "my clips", "--slurm", "4", "--audio", "logmel"], 4, tmp_path, tmp_path)
    assert "#SBATCH --array=0-3" in text
    assert "-m msekit extract 'my clips' --audio logmel --shard \"$SLURM_ARRAY_TASK_ID/4\"" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
