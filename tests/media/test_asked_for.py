"""What is asked for is done or refused, and what is not asked for is not fetched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("imageio_ffmpeg", reason="the extra msekit[media] is not installed")

from msekit.cli.main import app
from msekit.data.extractor import Extractor, check_settings
from msekit.errors import MsekitError
from msekit.media import transcribe
from msekit.media.at_hand import not_at_hand
from msekit.media.decode import has_sound
from msekit.media.encoder_names import place_of
from msekit.media.extract import features_of
from msekit.media.plan import plan_of
from msekit.testing.drawn_clips import face, voice, write_mp4

REVISION = "0" * 40
LAYERS = {"layers": "last4", "output": "frames"}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    called: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *a: called.append(a))
    return called


def test_a_record_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[object]) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MsekitError, match="hf download anyone/anything --revision 0000"):
        place_of("anyone/anything", REVISION, None)
    for name in ("anyone/anything", "../x"):
        ears = Extractor(name=name, version=REVISION, settings={"language": "en", "beam": 5})
        with pytest.raises(MsekitError, match="downloads nothing"):
            transcribe.load_transcriber(ears)
    sees = Extractor(
        name="anyone/anything", version=REVISION, settings=LAYERS | {"pictures_per_second": 4.0, "crop": "none"}
    )
    lines = list(not_at_hand({"text": ears, "vision": sees}))
    assert [line.split(":")[0] for line in lines] == ["clips cannot be read as text", "clips cannot be read as vision"]
    assert not no_network


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vision", LAYERS | {"crop": "none"}),
        ("vision", LAYERS | {"crop": "largest", "pictures_per_second": 4.0}),
        ("vision", LAYERS | {"crop": "none", "pictures_per_second": -1}),
        ("text", {"language": "en"}),
        ("audio", {"layers": 3, "output": "frames"}),
        ("face", {"pictures_per_second": 10.0}),
    ],
)
def test_settings_that_are_no_settings_are_one_line(kind: str, settings: dict) -> None:
    record = Extractor(name="face" if kind == "face" else "anyone/anything", version=REVISION, settings=settings)
    with pytest.raises(MsekitError, match="has no usable"):
        check_settings(record, kind)
    if kind != "text":
        with pytest.raises(MsekitError, match="has no usable"):
            features_of(Path("none.mp4"), "audio" if kind == "audio" else "vision", record)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--labels", "a,b"], "--labels and --range are of a table"),
        (["--range", "-3,3"], "--labels and --range are of a table"),
        (["--language", "zh"], "--language is of texts"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, options: list[str], complaint: str) -> None:
    done = CliRunner().invoke(app, ["extract", str(tmp_path), "--output", str(tmp_path / "out"), *options])
    assert complaint in str(done.exception)


def test_a_face_that_nothing_is_cut_to_is_refused() -> None:
    for vision in ("clip-large", "none"):
        with pytest.raises(MsekitError, match="--face is of pictures"):
            plan_of("logmel", vision, None, False, "none", "left")


def test_a_clip_says_whether_it_has_sound(tmp_path: Path) -> None:
    assert not has_sound(write_mp4(tmp_path / "silent.mp4", [face(0.5)] * 6, None))
    assert has_sound(write_mp4(tmp_path / "loud.mp4", [face(0.5)] * 6, voice(0.6, rising=True)))


def test_nothing_is_heard_in_a_silent_clip(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the extra msekit[serve] is not installed")
    from types import SimpleNamespace

    from msekit.serving.bodies import heard

    write_mp4(tmp_path / "vision.mp4", [face(0.5)] * 6, None)
    ears = Extractor(name="anyone/anything", version=REVISION, settings={"language": "en", "beam": 5})
    assert heard(tmp_path, SimpleNamespace(dataset=SimpleNamespace(extractors={"text": ears}))) == ""
