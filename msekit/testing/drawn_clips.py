"""Clips made on the spot: a drawn face that smiles or frowns, over a voice-like tone whose pitch rises or falls.

    python -m msekit.testing.drawn_clips clips --number 60

They show that `msekit extract`, `train` and `predict` work in a row, and nothing about people: no one speaks in them,
and the text says nothing. The labels are `glad` and `sad`; `new-glad.mp4` and `new-sad.mp4` are not in the table.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import wave
from pathlib import Path

import numpy as np

RATE = 16_000


def voice(seconds: float, rising: bool, seed: int = 0) -> np.ndarray:
    """(S,) float32: harmonics of a gliding pitch, with a little noise."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(int(seconds * RATE)) / RATE
    pitch_S = 140 + (90 if rising else -40) * time_S / seconds
    phase_S = 2 * np.pi * np.cumsum(pitch_S) / RATE
    tone_S = sum(np.sin(k * phase_S) / k for k in range(1, 8))
    return (0.1 * tone_S + 0.005 * rng.standard_normal(len(time_S))).astype(np.float32)


def write_wav(path: Path, samples_S: np.ndarray) -> Path:
    """A mono 16-bit wav."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples_S * 32767).astype("<i2").tobytes())
    return path


def face(smile: float, x: float = 160, y: float = 120, size: float = 1.0, onto: np.ndarray | None = None) -> np.ndarray:
    """(240, 320, 3) uint8 RGB: a drawn face whose mouth curves up (smile > 0) or down."""
    import cv2

    picture = np.full((240, 320, 3), (120, 110, 90), np.uint8) if onto is None else onto.copy()

    def ellipse(dx: float, dy: float, rx: float, ry: float, colour: tuple[int, int, int], *arc: int) -> None:
        angle, start, stop, thickness = arc or (0, 0, 360, -1)
        centre = (int(x + dx * size), int(y + dy * size))
        axes = (max(1, int(rx * size)), max(1, int(ry * size)))
        cv2.ellipse(picture, centre, axes, angle, start, stop, colour, thickness, cv2.LINE_AA)

    ellipse(0, 70, 25, 30, (215, 170, 140))
    ellipse(0, -8, 62, 80, (60, 40, 30))
    ellipse(0, 0, 55, 72, (225, 180, 150))
    for side in (-1, 1):
        ellipse(side * 22, -12, 12, 6, (255, 255, 255))
        ellipse(side * 22, -12, 5, 5, (20, 40, 60))
        ellipse(side * 22, -26, 14, 4, (60, 40, 30), 0, 180, 360, 3)
        ellipse(side * 30, 18, 10, 8, (228, 165, 140))
    ellipse(0, 17, 9, 4, (195, 150, 120), 0, 0, 180, 2)
    curve = (0, 0, 180, 4) if smile >= 0 else (180, 0, 180, 4)
    ellipse(0, 36 - 4 * smile, 20, 4 + 12 * abs(smile), (170, 70, 70), *curve)
    return cv2.GaussianBlur(picture, (5, 5), 0)


def write_mp4(path: Path, pictures: list[np.ndarray] | None, samples_S: np.ndarray | None) -> Path:
    """A clip with pictures at 10 a second, sound, or both; the ending names the container."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    sound = None
    if pictures is not None:
        height, width = pictures[0].shape[:2]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "10", "-i", "pipe:0"]
    if samples_S is not None:
        sound = write_wav(path.with_suffix(".sound.wav"), samples_S)
        command += ["-i", str(sound)]
    raw = b"".join(picture.tobytes() for picture in pictures or [])
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], input=raw, check=True)
    if sound is not None:
        sound.unlink()
    return path


def mood(path: Path, glad: bool, seed: int) -> Path:
    """A clip of a second or so: a glad one smiles and rises, a sad one frowns and falls."""
    rng = np.random.default_rng(seed)
    seconds, bend = float(rng.uniform(0.8, 1.6)), float(rng.uniform(0.5, 1.0))
    x, y, size = (float(rng.uniform(*ends)) for ends in ((130, 190), (105, 135), (0.8, 1.1)))
    bends = ((bend if glad else -bend) * (0.8 + 0.2 * np.sin(number)) for number in range(int(seconds * 10)))
    pictures = [face(curve, x=x, y=y, size=size) for curve in bends]
    return write_mp4(path, pictures, voice(seconds, rising=glad, seed=seed))


def make(folder: Path, number: int) -> Path:
    """Write a folder of clips and its table.

    Returns:
        The table, `clips.csv`: half glad, half sad; 60 % train, 20 % valid, 20 % test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "clips.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "text", "label", "split"])
        for index in range(number):
            glad = index % 2 == 0
            mood(folder / f"clip{index}.mp4", glad, seed=index)
            split = ("train", "train", "train", "valid", "test")[index // 2 % 5]
            lines.writerow([f"clip{index}.mp4", "Well, here we are.", "glad" if glad else "sad", split])
    for glad in (True, False):
        mood(folder / f"new-{'glad' if glad else 'sad'}.mp4", glad, seed=number + glad)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=60)
    options = parser.parse_args()
    print(make(options.folder, options.number))
