"""Engines of faces: what they write is hidden for a while only, and their model is fetched by a command alone."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session

from msekit.downloads import fetch_file
from msekit.errors import MsekitError
from msekit.media.face_engines import silent
from msekit.media.face_model import FETCH, OWN, face_model


def test_stderr_comes_back_after_two_silences_that_overlap() -> None:
    before = os.fstat(2)
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with silent():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with silent():
        leave.set()
        thread.join()
        assert not os.path.samestat(os.fstat(2), before), "the second is silent still"
    assert os.path.samestat(os.fstat(2), before)


def test_a_model_that_is_not_here_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path))
    monkeypatch.delenv(OWN, raising=False)
    called: list[object] = []
    for owner, name in ((subprocess, "run"), (subprocess, "Popen"), (socket, "create_connection")):
        monkeypatch.setattr(owner, name, lambda *a, **k: called.append(a))
    with pytest.raises(MsekitError, match=f"not on this machine.*{FETCH}.*{OWN}"):
        face_model()
    assert not called
    own = tmp_path / "own.task"
    own.write_bytes(b"another model")
    monkeypatch.setenv(OWN, str(own))
    with pytest.raises(MsekitError, match="wrong sha256"):
        face_model()


def test_a_file_is_in_place_only_where_its_sum_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the server is this test's own
    close_session()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"model")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url, target = f"http://127.0.0.1:{server.server_port}/model", tmp_path / "downloads" / "model"
    try:
        with pytest.raises(MsekitError, match="arrived damaged"):
            fetch_file(url, target, "0" * 64, "Or not.")
        assert not target.exists()
        fetch_file(url, target, "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4", "Or not.")
        assert target.read_bytes() == b"model"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        close_session()
