"""The hub, played by a small server with the real endpoints: download, interruption, refusals; and offline work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.backbones.hub import cached_folder, hub_folder
from msekit.cli.main import app
from msekit.errors import MsekitError

COMMIT = "c0ffee" + "0" * 34
REPO = "someone/qwen-tiny"
WIDE = {"hidden_size": 1024, "kv_channels": 256, "intermediate_size": 256, "num_hidden_layers": 1}
"""Has one file of 12 MB: the client writes whole blocks of 10 MB."""


class Hub:
    """Serves one folder as one model repository, and remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.gated = False
        self.stalls: str | None = None
        """A file whose download stops in the middle."""
        self.breaks: str | None = None
        """A file whose first connection breaks in the middle."""
        self.stalled, self.released = threading.Event(), threading.Event()
        self.asked: list[tuple[str, str, str | None]] = []
        """Method, path, and the range asked for."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path, request.headers.get("Range")))
        path = request.path.split("?")[0]
        if re.fullmatch(rf"/api/models/{REPO}(/revision/\w+)?", path):
            siblings = [{"rfilename": name} for name in self.files]
            self.send(request, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            self.send(request, json.dumps(tree).encode())
        elif path.startswith(f"/{REPO}/resolve/") and (name := path.rsplit("/", 1)[1]) in self.files:
            if self.gated:
                self.send(request, b"", 401, {"X-Error-Code": "GatedRepo"})
            else:
                self.send_file(request, name)
        else:
            self.send(request, b"", 404, {"X-Error-Code": "RepoNotFound"})

    def send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        content = self.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        start = re.match(r"bytes=(\d+)-", request.headers.get("Range") or "")
        if start:
            first = int(start[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.send(request, content[first:], 206, headers)
        elif name in (self.stalls, self.breaks) and request.command == "GET":
            request.send_response(200)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                request.send_header(key, value)
            request.end_headers()
            request.wfile.write(content[: 11 << 20])
            request.wfile.flush()
            if self.stalls:
                self.stalled.set()
                self.released.wait(60)
            else:
                self.breaks = None
            request.close_connection = True
        else:
            self.send(request, content, 200, headers)

    @staticmethod
    def send(request: BaseHTTPRequestHandler, body: bytes, status: int = 200, headers: dict | None = None) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture
def hub(published: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Hub]:
    folder = published("qwen1", **getattr(request, "param", {}))
    (folder / "modeling_qwen.py").write_text("raise SystemExit('run')")
    hub = Hub(folder)
    yield hub
    hub.server.shutdown()


@pytest.fixture
def reachable(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process talks to that hub, with an empty hub cache and nothing that says offline."""
    from huggingface_hub import constants

    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def fetched_files(hub: Hub) -> set[str]:
    return {path.rsplit("/", 1)[1] for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path}


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("hub", [WIDE], indirect=True)
def test_a_stopped_download_goes_on(hub: Hub, reachable: None, tmp_path: Path):
    hub.stalls = big = max(hub.files, key=lambda name: len(hub.files[name]))
    own = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    fetching = subprocess.Popen(
        [sys.executable, "-m", "msekit", "backbone", "fetch", REPO],
        env=os.environ | own,
        stderr=subprocess.DEVNULL,
    )
    blobs = tmp_path / "hub" / "models--someone--qwen-tiny" / "blobs"
    deadline = time.monotonic() + 100
    done = 0
    while not (hub.stalled.is_set() and done == len(hub.files) - 2):  # all but the code and the big file
        done = sum(blob.suffix != ".incomplete" for blob in blobs.glob("*"))
        assert time.monotonic() < deadline
        time.sleep(0.05)
    fetching.kill()
    fetching.wait()
    hub.released.set()
    assert cached_folder(REPO) is None, "not complete"

    hub.asked.clear()
    hub.released.clear()
    hub.breaks, hub.stalls = big, None  # now the connection breaks once
    done = CliRunner().invoke(app, ["backbone", "fetch", REPO])
    assert done.exit_code == 0, done.exception
    assert fetched_files(hub) == {big}, "what was complete is not fetched again, and code never"
    assert any(span and int(re.findall(r"\d+", span)[0]) > 0 for _, _, span in hub.asked), "taken up in the middle"
    assert cached_folder(REPO) is not None


@pytest.mark.slow
def test_what_is_cached_needs_no_network(hub: Hub, reachable: None, tmp_path: Path):
    folder = hub_folder(REPO)
    assert cached_folder(REPO) == folder
    assert not (folder / "modeling_qwen.py").exists()
    hub.asked.clear()
    train = ["train", "--backbone", REPO, "--dataset", "synthetic-erc", "--limit-train", "16", "--epochs", "1"]
    done = CliRunner().invoke(app, [*train, "--set", "evaluation.bootstrap=0", "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.exception
    assert CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--split", "valid"]).exit_code == 0
    assert hub.asked == []


def test_refusals(hub: Hub, reachable: None):
    hub.gated = True
    for name, expected in (
        (REPO, "Accept it on the model's hub page, then run `hf auth login` or set HF_TOKEN"),
        ("nobody/nothing", "no such model on the hub"),
        ("not//an-id", "no such model on the hub"),
    ):
        with pytest.raises(MsekitError) as refusal:
            hub_folder(name)
        assert expected in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_pinned_revision_is_asked_for(hub: Hub, reachable: None):
    hub_folder(REPO, COMMIT)
    assert all(COMMIT in path for _, path, _ in hub.asked)
    assert cached_folder(REPO, COMMIT)
    assert cached_folder(REPO) is None, "main was never asked for"
