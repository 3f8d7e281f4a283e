"""A clip → its sound and its pictures, through the ffmpeg that the package `imageio-ffmpeg` ships.

ffmpeg runs as a process of its own: a damaged file ends that process, never ours. It may open nothing but the named
file, and only the container formats listed here, so that no playlist in disguise makes it read another.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from msekit.errors import MsekitError, needs_extra
from msekit.media.whole import check_bytes, check_length, check_report

SAMPLE_RATE = 16_000
"""Samples a second of all sound, which has one channel."""
LONGEST_SECONDS = 600
"""Longest clip; a clip is an utterance."""
CLIP_SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".mp4", ".mov", ".avi", ".webm", ".mkv")
_FORMATS = "wav,mp3,flac,ogg,aac,mov,mp4,m4a,avi,matroska,webm"
_PATIENCE_SECONDS = 300
_LARGEST_SIDE = 640
_T = TypeVar("_T")


def sound(path: Path, longest: int = LONGEST_SECONDS) -> np.ndarray:
    """The sound of a clip, (samples,) float32 in [-1, 1] at `SAMPLE_RATE`.

    Args:
        path: The clip.
        longest: Most seconds that it may have.

    Raises:
        MsekitError: The file is missing, cannot be decoded, breaks off, has no sound or one that is not finite, or is
            too long.
    """
    output = ["-vn", "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "pipe:1"]
    try:
        command = clip_command(path, output, seconds=longest + 1)
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MsekitError(f"decoding took more than {_PATIENCE_SECONDS} s", where=path) from error
    _check(done.returncode, done.stderr, path, "sound")
    samples = np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], np.float32)
    if not len(samples):
        raise MsekitError("the clip has no sound", where=path)
    if len(samples) >= longest * SAMPLE_RATE:
        raise MsekitError(f"the clip is longer than {longest} s", where=path, fix="Cut it: --segment vad.")
    check_length(done.stderr.decode("utf-8", "replace"), len(samples) / SAMPLE_RATE, path)
    if broken := len(samples) - int(np.isfinite(samples).sum()):
        share = f"{broken / len(samples):.1%}" if broken < len(samples) else "all"
        raise MsekitError(f"the sound is not finite: {share} of it is NaN or infinite", where=path)
    return samples


def pictures(path: Path, per_second: float) -> Iterator[np.ndarray]:
    """The pictures of a clip at even times, each (height, width, 3) uint8 RGB, the longer side at most 640.

    Args:
        path: The clip.
        per_second: Pictures a second.

    Raises:
        MsekitError: The file is missing, cannot be decoded, breaks off, has no picture, or is too long.
    """
    smaller = f"w='min({_LARGEST_SIDE},iw)':h='min({_LARGEST_SIDE},ih)'"
    shape = f"scale={smaller}:force_original_aspect_ratio=decrease:flags=area"
    output = ["-an", "-vf", f"fps={per_second},{shape}", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    count = 0
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(clip_command(path, output), stdout=subprocess.PIPE, stderr=complaints)
        assert process.stdout is not None
        watch = _Watch(process)
        try:
            while (picture := watch.of(_ppm, process.stdout)) is not None:
                count += 1
                if count > LONGEST_SECONDS * per_second:
                    raise MsekitError(f"the clip is longer than {LONGEST_SECONDS} s", where=path)
                yield picture
            watch.of(process.wait)
        finally:
            watch.end()
            process.kill()
            process.stdout.close()
            process.wait()
        if watch.ended_it:
            raise MsekitError(f"decoding stood still for {_PATIENCE_SECONDS} s", where=path)
        complaints.seek(0)
        report = complaints.read()
        _check(process.returncode, report, path, "pictures")
        check_report(report.decode("utf-8", "replace"), path)
    if not count:
        raise MsekitError("the clip has no pictures", where=path)


def has_pictures(path: Path) -> bool:
    """Whether a clip has moving pictures, not only sound or a cover.

    Raises:
        MsekitError: The file is missing, or shorter than it says.
    """
    return any("Video:" in line and "attached pic" not in line for line in _streams(path))


def has_sound(path: Path) -> bool:
    """Whether a clip has sound.

    Raises:
        MsekitError: The file is missing, or shorter than it says.
    """
    return any("Audio:" in line for line in _streams(path))


def _streams(path: Path) -> list[str]:
    """ffmpeg's lines about what a clip holds."""
    command = clip_command(path, ["-t", "0", "-f", "null", "-"])
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MsekitError(f"decoding took more than {_PATIENCE_SECONDS} s", where=path) from error
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    return [line for line in lines if "Stream #0" in line]


def clip_command(path: Path, output: list[str], start: float = 0.0, seconds: float = LONGEST_SECONDS + 1) -> list[str]:
    """ffmpeg's command line for a clip, which may open no other file and no network.

    Args:
        path: The clip.
        output: What comes of it.
        start: Seconds into it.
        seconds: Most seconds from there.

    Raises:
        MsekitError: imageio-ffmpeg is not installed, the file is missing, or shorter than it says.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise needs_extra("reading clips needs imageio-ffmpeg", "media") from error
    if not path.is_file():
        raise MsekitError("no such clip", where=path)
    check_bytes(path)
    first = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
    first += ["-threads", "1"]
    only = ["-protocol_whitelist", "file,pipe", "-format_whitelist", _FORMATS]
    from_there = ["-ss", f"{start:.3f}"] if start else []
    return [*first, *only, *from_there, "-i", f"file:{path.resolve()}", "-t", f"{seconds:g}", *output]


def _check(returncode: int, complaints: bytes, path: Path, wanted: str) -> None:
    if returncode == 0:
        return
    lines = complaints.decode("utf-8", "replace").splitlines()
    text = "\n".join(line.rpartition("] ")[2] for line in lines if "[error]" in line or "[fatal]" in line)
    if "does not contain any stream" in text or "matches no streams" in text:
        raise MsekitError(f"the clip has no {wanted}", where=path)
    reason = (text.splitlines() or [f"ffmpeg ended with {returncode}"])[-1]
    raise MsekitError(f"the clip cannot be decoded: {reason.split(str(path.parent))[-1][:200]}", where=path)


class _Watch:
    """Kills ffmpeg when it keeps us waiting for too long; the time that we take between pictures does not count."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._since, self._over = process, 0.0, threading.Event()
        self.ended_it = False
        self._thread = threading.Thread(target=self._look, daemon=True, name="msekit-ffmpeg")
        self._thread.start()

    def of(self, wait: Callable[..., _T], *arguments: Any) -> _T:
        """Call what waits for ffmpeg."""
        self._since = time.monotonic()
        try:
            return wait(*arguments)
        finally:
            self._since = 0.0

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(min(_PATIENCE_SECONDS / 4, 5)):
            since = self._since
            if since and time.monotonic() - since > _PATIENCE_SECONDS:
                self.ended_it = True
                self._process.kill()
                return


def _ppm(stream: IO[bytes]) -> np.ndarray | None:
    """The next picture of a stream of binary PPM files; None where the stream ends or breaks off."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()  # 255
    data = stream.read(width * height * 3)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3) if len(data) == width * height * 3 else None
