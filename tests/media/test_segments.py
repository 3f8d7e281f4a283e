"""Pieces of recordings: what was cut from a file that is no longer there does not stay."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg", reason="the extra msekit[media] is not installed")

from msekit.media import segments
from msekit.media.decode import SAMPLE_RATE, sound
from msekit.media.segments import Piece, cut
from msekit.media.table import Clip
from msekit.testing.drawn_clips import write_wav


def loud(samples_S: np.ndarray) -> list[Piece]:
    """Where a recording is not silent: a detector of speech is an extra of its own."""
    edges = np.flatnonzero(np.diff(np.abs(samples_S) > 0.05, prepend=False, append=False))
    return [Piece(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def tones(*levels: float) -> np.ndarray:
    """(S,) sound: a third of a second at each level, silence between."""
    third, silence = SAMPLE_RATE // 3, np.zeros(SAMPLE_RATE // 3, np.float32)
    return np.concatenate([part for level in levels for part in (silence, np.full(third, level, np.float32))])


def test_pieces_of_a_replaced_recording_are_cut_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "pieces_of", loud)
    recording, folder = tmp_path / "talk.wav", tmp_path / "cut"
    write_wav(recording, tones(0.2, 0.3, 0.4))
    first = cut(Clip("talk", recording), folder)
    other = cut(Clip("talk-2", recording), folder)
    assert len(first) == len(other) == 3
    write_wav(recording, tones(0.6, 0.7))
    os.utime(recording, (1, 1))  # an older file takes its place, as a copy from elsewhere does
    again = cut(Clip("talk", recording), folder)
    assert len(again) == 2
    levels = [float(np.abs(sound(piece.path)).max()) for piece in again]
    assert levels == pytest.approx([0.6, 0.7], abs=0.02)
    assert not first[2].path.exists()
    assert all(piece.path.exists() for piece in other), "another recording's pieces stay"
