"""Damaged sound: a clip that is not all there, or whose sound is not finite, is named and left out."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from msekit.errors import MsekitError

pytest.importorskip("imageio_ffmpeg", reason="the extra msekit[media] is not installed")

from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.media.decode import SAMPLE_RATE, pictures, sound
from msekit.testing.drawn_clips import voice, write_wav

SECONDS = 3.0


def clip(folder: Path, suffix: str) -> Path:
    """Three seconds of a voice in any container; moving pictures beside it where there can be some."""
    import imageio_ffmpeg

    wav = write_wav(folder / "voice.wav", voice(SECONDS, rising=True))
    if suffix == ".wav":
        return wav
    film = ["-f", "lavfi", "-i", f"testsrc=size=64x64:rate=10:duration={SECONDS}", "-movflags", "+faststart"]
    with_pictures = suffix in (".mp4", ".mov", ".avi", ".mkv", ".webm")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", str(wav)]
    path = folder / f"a{suffix}"
    subprocess.run([*command, *(film if with_pictures else ["-movflags", "+faststart"]), str(path)], check=True)
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    shorter = path.with_name(f"cut{path.suffix}")
    shorter.write_bytes(content[: int(len(content) * share)])
    return shorter


SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".mp4", ".mov", ".avi", ".mkv", ".webm")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_copy_that_broke_off_is_refused_and_the_whole_clip_is_read(tmp_path: Path, suffix: str) -> None:
    whole = clip(tmp_path, suffix)
    assert abs(len(sound(whole)) / SAMPLE_RATE - SECONDS) < 0.1
    for share in (0.9, 0.6, 0.15):
        with pytest.raises(MsekitError, match=r"shorter than it says|breaks off|cannot be decoded"):
            sound(cut(whole, share))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm"])
def test_so_are_its_pictures(tmp_path: Path, suffix: str) -> None:
    whole = clip(tmp_path, suffix)
    assert len(list(pictures(whole, 10))) >= 29
    with pytest.raises(MsekitError, match=r"shorter than it says|breaks off"):
        list(pictures(cut(whole, 0.6), 10))


def ffmpeg(*arguments: str) -> None:
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *arguments], check=True)


def test_names_and_titles_say_nothing_about_the_clip(tmp_path: Path) -> None:
    folder = tmp_path / "partial file"
    folder.mkdir()
    wav = clip(folder, ".wav")
    titled = folder / "a.mp3"
    ffmpeg("-i", str(wav), "-metadata", "title=It ended prematurely\n[error] Duration: 00:10:00.00", str(titled))
    for path in (wav, titled):
        assert abs(len(sound(path)) / SAMPLE_RATE - SECONDS) < 0.1


def test_a_length_that_is_only_estimated_is_not_compared(tmp_path: Path) -> None:
    silence = ["-f", "lavfi", "-i", "anullsrc=r=44100:cl=mono:d=1", "-i", str(clip(tmp_path, ".wav"))]
    joined = ["-filter_complex", "[0][1]concat=v=0:a=1", "-q:a", "0", "-write_xing", "0", "-id3v2_version", "0"]
    ffmpeg(*silence, *joined, str(tmp_path / "a.mp3"))
    assert abs(len(sound(tmp_path / "a.mp3")) / SAMPLE_RATE - SECONDS - 1) < 0.1


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_sound_that_starts_late_is_whole(tmp_path: Path, suffix: str) -> None:
    late = tmp_path / f"late{suffix}"
    ffmpeg("-itsoffset", "2", "-i", str(clip(tmp_path, ".wav")), "-copyts", str(late))
    assert abs(len(sound(late)) / SAMPLE_RATE - SECONDS) < 0.1
    with pytest.raises(MsekitError, match=r"shorter than it says|breaks off"):
        sound(cut(late, 0.6))


def wave(content: np.ndarray, kind: int, stated: int | None = None) -> bytes:
    """A WAV of float samples (kind 3) or integers (kind 1), whose data may state another length than it has."""
    data, bits = content.tobytes(), content.dtype.itemsize * 8
    fmt = struct.pack("<HHIIHH", kind, 1, SAMPLE_RATE, SAMPLE_RATE * bits // 8, bits // 8, bits)
    stated = len(data) if stated is None else stated
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", stated) + data
    return b"RIFF" + struct.pack("<I", min(len(chunks), 0xFFFFFFFF)) + chunks


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_that_was_written_to_a_pipe_states_no_length(tmp_path: Path, stated: int) -> None:
    samples = (voice(1.0, rising=True) * 32767).astype(np.int16)
    (tmp_path / "a.wav").write_bytes(wave(samples, 1, stated))
    assert len(sound(tmp_path / "a.wav")) == SAMPLE_RATE


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [slice(None), slice(4000, 4001), slice(15_990, None)])
def test_sound_that_is_not_finite_is_refused(tmp_path: Path, dtype: type, value: float, place: slice) -> None:
    samples = voice(1.0, rising=True).astype(dtype)
    samples[place] = value
    (tmp_path / "a.wav").write_bytes(wave(samples, 3))
    with pytest.raises(MsekitError, match="the sound is not finite"):
        sound(tmp_path / "a.wav")


def test_extract_names_them_and_leaves_them_out(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    samples = voice(1.0, rising=True).astype(np.float32)
    (clips / "whole.wav").write_bytes(wave(samples, 3))
    (clips / "cut.wav").write_bytes(wave(samples[:2000], 3, samples.nbytes))
    (clips / "nan.wav").write_bytes(wave(samples * np.float32("nan"), 3))
    command = ["extract", str(clips), "--audio", "logmel", "--vision", "none", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--workers", "1"])
    assert result.exit_code == 2, result.exception
    said = " ".join(result.output.split())
    assert "cut: no audio: the clip is shorter than it says: 0.12 s of its 1.00 s are there" in said
    assert "nan: no audio: the sound is not finite" in said
    assert [path.stem for path in (tmp_path / "out" / "audio").iterdir()] == ["whole"]
