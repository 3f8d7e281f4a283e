"""Progress without a terminal: a line a minute, whole lines, none that is blank."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hub_server import HubServer
from rich.filesize import decimal

from msekit import patience
from msekit.backbones.checkpoints.download import hub_folder
from msekit.patience import in_time
from msekit.reporter import Reporter


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that a test moves."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(patience.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (600, "10 min"), (5400, "1.5 h"), (86400, "24.0 h"), (200000, "2.3 days")],
)
def test_durations(seconds: float, said: str):
    assert in_time(seconds) == said


def test_a_line_a_minute(minute: Any, capsys: pytest.CaptureFixture[str]):
    with Reporter().bar("seed 1111, epoch 2 of 15", 10_000) as advance:
        for _ in range(100):
            minute.now += 10
            advance(50, "step 7 of 9, loss 1.250, 5.0 samples/s")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 16
    assert lines[0] == ("seed 1111, epoch 2 of 15: 300 of 10,000, step 7 of 9, loss 1.250, 5.0 samples/s, 32 min left")


def test_bytes(minute: Any, capsys: pytest.CaptureFixture[str]):
    with Reporter().bar("fetching model.safetensors", 10_000_000, 1_000_000, in_bytes=True) as advance:
        minute.now += 61
        advance(2_000_000)
    assert f"{decimal(3_000_000)} of {decimal(10_000_000)}" in capsys.readouterr().err


def test_a_download_tells_its_bytes(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(patience, "EVERY_S", 0.0)
    hub.add("org/big", {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(12_000_000)})
    hub_folder("org/big")
    said = capsys.readouterr().err
    assert "fetching model.safetensors: 10.5 MB of 12.0 MB" in said
    assert "\r" not in said


def test_what_takes_a_while_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(patience, "EVERY_S", 0.02)
    reporter = Reporter()
    with reporter.status("loading an LLM"):
        time.sleep(0.2)
    with reporter.rows("verifying own") as passed:
        passed("train", 640)
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert any(re.fullmatch(r"loading an LLM: since \d+ s", line) for line in said)
    assert any(re.fullmatch(r"verifying own: train, 640 rows: since \d+ s", line) for line in said)
    assert all(line.strip() for line in said)


def test_short_things_say_nothing(capsys: pytest.CaptureFixture[str]):
    reporter = Reporter()
    with reporter.status("loading"), reporter.rows("rows") as passed, reporter.bar("bar", 3) as advance:
        passed("train", 64)
        advance(3)
    assert capsys.readouterr().err == ""
