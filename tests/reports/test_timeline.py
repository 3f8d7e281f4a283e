"""The answer over time: a plot of emotions or intensities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the extra msekit[plot] is not installed")

from msekit.errors import MsekitError
from msekit.reports.timeline import draw_timeline

EMOTIONS: list[dict[str, Any]] = [
    {"start": 1.0, "end": 3.5, "prediction": "glad", "scores": {"glad": 0.7, "sad": 0.3}},
    {"start": 4.0, "end": 9.0, "prediction": "sad", "scores": {"glad": 0.2, "sad": 0.8}},
]
GRID = [f"{tenth / 10:.1f}" for tenth in range(-10, 11)]
INTENSITIES: list[dict[str, Any]] = [
    {"start": 0.5, "end": 2.0, "prediction": 0.3, "scores": dict.fromkeys(GRID, 1 / len(GRID))},
    {"start": 2.5, "end": 4.0, "prediction": -0.8, "scores": {value: float(value == "-0.8") for value in GRID}},
]


def drawn(path: Path) -> str:
    """An SVG's text."""
    return path.read_text(encoding="utf-8")


def test_emotions_are_shares_with_their_names(tmp_path: Path) -> None:
    draw_timeline(EMOTIONS, tmp_path / "a.svg", "talk.mp4")
    once = drawn(tmp_path / "a.svg")
    draw_timeline([*EMOTIONS, EMOTIONS[0] | {"start": 10.0, "end": 11.0}], tmp_path / "b.svg", "talk.mp4")
    assert drawn(tmp_path / "b.svg").count('id="patch_') == once.count('id="patch_') + 2  # a bar for each emotion
    draw_timeline(EMOTIONS, tmp_path / "a.png", "talk.mp4")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_intensities_are_a_line(tmp_path: Path) -> None:
    draw_timeline(INTENSITIES, tmp_path / "a.svg", "talk.mp4")
    assert "<svg" in drawn(tmp_path / "a.svg")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MsekitError, match="no ending of a plot"):
        draw_timeline(EMOTIONS, tmp_path / "a.txt", "talk.mp4")
    with pytest.raises(MsekitError, match="nothing to plot"):
        draw_timeline([], tmp_path / "a.svg", "talk.mp4")
