"""A model from the hub: download, interruption, refusals; and offline work afterwards."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import HubServer, Repo
from typer.testing import CliRunner

from msekit.backbones.checkpoints.download import cached_folder, hub_folder
from msekit.cli.main import app
from msekit.errors import MsekitError

REPO = "someone/qwen-tiny"
WIDE = {"hidden_size": 1024, "kv_channels": 256, "intermediate_size": 256, "num_hidden_layers": 1}
"""Has one file of 12 MB: the client writes whole blocks of 10 MB."""


@pytest.fixture
def repo(hub: HubServer, published: Callable[..., Path], request: pytest.FixtureRequest) -> Repo:
    """A checkpoint on the local hub, with code that must never be fetched."""
    folder = published("qwen1", **getattr(request, "param", {}))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return hub.add(REPO, files | {"modeling_qwen.py": b"raise SystemExit('run')", "original/a.json": b"{}"})


def fetched_files(hub: HubServer) -> list[str]:
    return [request.path for request in hub.requests if request.method == "CONTENT"]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("repo", [WIDE], indirect=True)
def test_a_killed_download_goes_on_where_it_stopped(hub: HubServer, repo: Repo, tmp_path: Path):
    """SIGKILL in the middle of a weight file: neither what was complete nor the file's beginning is loaded again."""
    big = max(repo.files, key=lambda name: len(repo.files[name]))
    hub.seconds_per_block[big] = 0.002
    command = [sys.executable, "-m", "msekit", "backbone", "fetch", REPO]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    digest = hashlib.sha256(repo.files[big]).hexdigest()
    partial = tmp_path / "hf-home" / "hub" / "models--someone--qwen-tiny" / "blobs" / f"{digest}.partial"
    deadline = time.monotonic() + 60
    while not (partial.is_file() and partial.stat().st_size):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = partial.stat().st_size
    assert 0 < kept < len(repo.files[big])
    assert cached_folder(REPO) is None, "not complete"
    hub.seconds_per_block.clear()
    hub.requests.clear()
    done = CliRunner().invoke(app, ["backbone", "fetch", REPO])
    assert done.exit_code == 0, done.exception
    assert fetched_files(hub) == [big], "what was complete is not fetched again, and code never"
    assert hub.downloads(big) == [f"bytes={kept}-"]
    folder = cached_folder(REPO)
    assert folder is not None
    wanted = {
        name: content for name, content in repo.files.items() if name not in ("modeling_qwen.py", "original/a.json")
    }
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted
    assert not partial.exists()


def test_damaged_weights_are_never_put_in_place(hub: HubServer, repo: Repo):
    big = max(repo.files, key=lambda name: len(repo.files[name]))
    hub.damaged.add(big)
    with pytest.raises(MsekitError, match="arrived damaged"):
        hub_folder(REPO)
    assert cached_folder(REPO) is None
    hub.damaged.clear()
    assert (hub_folder(REPO) / big).read_bytes() == repo.files[big]


def test_safetensors_where_there_are_both(hub: HubServer, repo: Repo):
    repo.files["pytorch_model.bin"] = b"x" * 5000
    folder = hub_folder(REPO)
    assert not (folder / "pytorch_model.bin").exists()
    assert hub.downloads("pytorch_model.bin") == []


@pytest.mark.slow
def test_what_is_cached_needs_no_network(hub: HubServer, repo: Repo, tmp_path: Path):
    folder = hub_folder(REPO)
    assert cached_folder(REPO) == folder
    assert not (folder / "modeling_qwen.py").exists()
    hub.requests.clear()
    train = ["train", "--backbone", REPO, "--dataset", "synthetic-erc", "--limit-train", "16", "--epochs", "1"]
    done = CliRunner().invoke(app, [*train, "--set", "evaluation.bootstrap=0", "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.exception
    assert CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--split", "valid"]).exit_code == 0
    assert hub.requests == []


def test_refusals(hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch):
    repo.gated = True
    for name, expected in (
        (REPO, "Accept it on its hub page, then run `hf auth login` or set HF_TOKEN"),
        ("nobody/nothing", "no such model on the hub"),
        ("not//an-id", "no such model on the hub"),
    ):
        assert expected in refusal(name)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the download failed" in refusal(REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "switched off by HF_HUB_OFFLINE" in refusal(REPO)


def refusal(name: str) -> str:
    with pytest.raises(MsekitError) as refused:
        hub_folder(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_pinned_revision_is_asked_for(hub: HubServer, repo: Repo):
    commit = repo.commit
    assert hub_folder(REPO, commit).name == commit
    assert cached_folder(REPO, commit)
    assert cached_folder(REPO) is None, "main was never asked for"
    with pytest.raises(MsekitError, match="no revision 'v9' of the model"):
        hub_folder(REPO, "v9")
