"""Pushing without a network, without an answer, without a log-in or with the hub switched off: a line each, exit 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

from msekit.sharing.export import export_run

GOLDEN = Path(__file__).parents[1] / "golden" / "run" / "finished" / "seed-1111"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "plug-in"
    export_run(GOLDEN, folder)
    return folder


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from msekit.cli.entry import run; run()"


def pushed(folder: Path, repo: str = "tester/x", **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command in a process of its own that has no torch: it is told before that."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own |= {"HF_HOME": str(folder.parent / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "push", str(folder), repo],
        capture_output=True,
        text=True,
        check=False,
        env=own,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes a connection and closes it without an answer."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.parametrize("token", ["hf_sometoken", ""])
def test_nobody_listens(exported: Path, token: str):
    code, out, said = pushed(exported, HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN=token)
    assert (code, out, len(said.splitlines())) == (2, "", 1), said
    assert "the upload failed: " in said
    assert "Check the network" in said


@pytest.mark.slow
def test_no_such_host_no_answer_and_a_hub_that_is_switched_off(exported: Path, silent_port: int):
    for environment, expected in (
        ({"HF_ENDPOINT": "http://no.such.host.invalid"}, "the upload failed"),
        ({"HF_ENDPOINT": f"http://127.0.0.1:{silent_port}"}, "the upload failed"),
        ({"HF_HUB_OFFLINE": "1"}, "switched off by HF_HUB_OFFLINE"),
    ):
        code, out, said = pushed(exported, HF_TOKEN="hf_sometoken", **environment)
        assert (code, out, len(said.splitlines())) == (2, "", 1), said
        assert expected in said


@pytest.mark.slow
def test_a_name_that_is_none_and_no_log_in(exported: Path):
    with HubServer() as hub:
        for repo, token, expected in (
            ("no name!", "hf_sometoken", "not a repository name"),
            ("a/b", "", "hf auth login"),
        ):
            code, out, said = pushed(exported, repo, HF_TOKEN=token, HF_ENDPOINT=hub.url)
            assert (code, out, len(said.splitlines())) == (2, "", 1), said
            assert expected in said
        assert not hub.uploads


def test_a_folder_that_was_not_exported(tmp_path: Path):
    code, out, said = pushed(tmp_path / "nowhere")
    assert (code, out, len(said.splitlines())) == (2, "", 1), said
    assert "not an exported folder" in said
