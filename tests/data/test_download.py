"""Features from the hub by the real client and a local server: whole or refused, resumed, never loaded twice."""

from __future__ import annotations

import hashlib
import json
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hub_server import HubServer
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import DATASETS, DatasetSpec, resolve_dataset
from msekit.data.download import downloaded, fetch, with_features
from msekit.errors import MsekitError
from msekit.reporter import Reporter

MOSEI, MELD = DATASETS["mosei"], DATASETS["meld"]
NAME = "unaligned_50.pkl"
QUIET = Reporter(quiet=True)
BLOCK = 10_000


def mosei_file(samples: int = 12) -> bytes:
    """A small file in MOSEI's layout and widths."""
    rng = np.random.default_rng(0)
    split = {
        "raw_text": [f"text {number}" for number in range(samples)],
        "audio": rng.normal(size=(samples, 5, 74)),
        "vision": rng.normal(size=(samples, 4, 35)),
        "audio_lengths": [5] * samples,
        "vision_lengths": [4] * samples,
        "regression_labels": rng.uniform(-3, 3, samples),
        "id": [str(number) for number in range(samples)],
    }
    return pickle.dumps({"train": split, "valid": split, "test": split})


@pytest.fixture(autouse=True)
def own_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing downloaded yet; small chunks, and no waiting before the client tries again."""
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", BLOCK)
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
    return tmp_path / "cache" / "downloads"


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, MsekitError), (result.exception, result.output)
    message = str(result.exception)
    assert "\n" not in message, "one line"
    return message


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_features_are_downloaded_once_and_used_without_the_hub(hub: HubServer, own_downloads: Path):
    content = mosei_file()
    repo = hub.add(str(MOSEI.hub), {NAME: content, "README.md": b"features"}, kind="dataset")
    spec = with_features(MOSEI, QUIET)
    assert spec.source == own_downloads / "AZYoung--MOSEI_processed" / repo.commit
    assert (spec.source / NAME).read_bytes() == content
    assert hub.downloads("README.md") == [], "only what is needed"
    assert prepare(spec).info.splits["train"].samples == 12
    hub.requests.clear()
    assert with_features(MOSEI, QUIET) == spec
    assert with_features(MOSEI.model_copy(update={"source": Path("/elsewhere")}), QUIET).source == Path("/elsewhere")
    assert hub.requests == [], "neither with what is here nor with a source of one's own"
    fetch(MOSEI, QUIET)
    assert hub.downloads(NAME) == [], "asked again, the hub only says that nothing is new"


def test_three_files_in_a_subfolder(hub: HubServer):
    """Small files carry git's checksum instead of a sha256."""
    rows = pickle.dumps([{"features": {"text": "hm"}, "label": "joy"}])
    files = {f"processed/meld_{split}.pkl": rows for split in ("train", "valid", "test")}
    hub.add(str(MELD.hub), files | {"processed/other_train.pkl": b"x"}, kind="dataset")
    folder = fetch(MELD, QUIET)
    assert leftovers(folder) == ["meld_test.pkl", "meld_train.pkl", "meld_valid.pkl"]
    assert (folder / "meld_test.pkl").read_bytes() == rows


def test_another_name_is_taken_where_only_one_file_can_be_meant(hub: HubServer):
    hub.add(str(MOSEI.hub), {"data/MOSEI.pkl": mosei_file()}, kind="dataset")
    assert leftovers(fetch(MOSEI, QUIET)) == [NAME]


def test_a_newer_version_is_fetched_and_a_pinned_one_stays(hub: HubServer):
    old = hub.add(str(MOSEI.hub), {NAME: mosei_file()}, kind="dataset").commit
    pinned = MOSEI.model_copy(update={"hub_revision": old})
    first = fetch(pinned, QUIET)
    assert downloaded(pinned) == downloaded(MOSEI) == first
    new = hub.add(str(MOSEI.hub), {NAME: mosei_file(13)}, kind="dataset").commit
    assert fetch(MOSEI, QUIET).name == new
    assert downloaded(pinned) is None
    with pytest.raises(MsekitError, match=f"no revision '{old}'"):
        fetch(pinned, QUIET)


def test_a_dropped_connection_is_taken_up_again(hub: HubServer):
    content = mosei_file()
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")
    hub.drop[NAME] = 2 * BLOCK
    assert (fetch(MOSEI, QUIET) / NAME).read_bytes() == content
    assert hub.downloads(NAME) == [None, f"bytes={2 * BLOCK}-"]


def test_a_hub_that_goes_away_and_comes_back(hub: HubServer, own_downloads: Path, monkeypatch: pytest.MonkeyPatch):
    """The client gives up; the next call asks for the rest alone."""
    content = mosei_file()
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")

    def gives_up(*_: object) -> None:
        raise OSError("Network is unreachable")

    hub.drop[NAME] = 2 * BLOCK
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=gives_up))
    assert "goes on where it stopped" in refused("data", "fetch", "mosei")
    (partial,) = own_downloads.rglob("*.partial")
    assert partial.stat().st_size == 2 * BLOCK
    assert downloaded(MOSEI) is None
    assert (fetch(MOSEI, QUIET) / NAME).read_bytes() == content
    assert hub.downloads(NAME) == [None, f"bytes={2 * BLOCK}-"]


@pytest.mark.multiprocess
def test_a_killed_download_goes_on_where_it_stopped(hub: HubServer, own_downloads: Path):
    """SIGKILL in the middle of 32 MB; the client writes 10 MiB at a time."""
    content = np.random.default_rng(0).bytes(32_000_000)
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")
    hub.seconds_per_block[NAME] = 0.0005
    command = [sys.executable, "-m", "msekit", "data", "fetch", "mosei"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    arrived, deadline = 0, time.monotonic() + 60
    while not 10_000_000 < arrived < len(content):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        arrived = sum(path.stat().st_size for path in own_downloads.rglob("*.partial"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert downloaded(MOSEI) is None
    (partial,) = own_downloads.rglob("*.partial")
    kept = partial.stat().st_size
    assert 10_000_000 < kept < len(content)
    hub.seconds_per_block.clear()
    assert (fetch(MOSEI, QUIET) / NAME).read_bytes() == content
    assert hub.downloads(NAME) == [None, f"bytes={kept}-"]


def test_damaged_content_is_never_put_in_place(hub: HubServer, own_downloads: Path):
    content = mosei_file()
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")
    hub.damaged.add(NAME)
    assert "arrived damaged" in refused("data", "fetch", "mosei")
    assert leftovers(own_downloads) == []
    hub.damaged.clear()
    assert (fetch(MOSEI, QUIET) / NAME).read_bytes() == content


def test_a_beginning_that_was_damaged_here_is_given_up(hub: HubServer, own_downloads: Path):
    content = mosei_file()
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")
    folder = fetch(MOSEI, QUIET)
    digest = json.loads((folder.parent / "features.json").read_text())
    assert digest["sizes"] == {NAME: len(content)}
    (folder / NAME).unlink()
    partial = folder.parent / f"{hashlib.sha256(content).hexdigest()}.partial"
    partial.write_bytes(b"\0" * BLOCK)
    hub.requests.clear()
    assert (fetch(MOSEI, QUIET) / NAME).read_bytes() == content
    assert hub.downloads(NAME) == [f"bytes={BLOCK}-", None]


def test_fetch_repairs_a_file_that_was_damaged_here(hub: HubServer):
    content = mosei_file()
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")
    file = fetch(MOSEI, QUIET) / NAME
    file.write_bytes(content[:-1])
    assert downloaded(MOSEI) is None
    file.write_bytes(b"\0" + content[1:])
    assert (fetch(MOSEI, QUIET) / NAME).read_bytes() == content


def test_several_at_once_download_once(hub: HubServer):
    content = mosei_file()
    hub.add(str(MOSEI.hub), {NAME: content}, kind="dataset")
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: fetch(MOSEI, QUIET), range(3)))
    assert len(set(folders)) == 1
    assert hub.downloads(NAME) == [None]


def test_every_refusal_is_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    assert "no such data set on the hub" in refused("data", "fetch", "mosei")
    assert "--source" in refused("data", "prepare", "mosei")
    hub.add(str(MOSEI.hub), {NAME: b"x"}, kind="dataset", gated=True)
    assert "gated" in refused("data", "fetch", "mosei")
    hub.add(str(MOSEI.hub), {"a.pkl": b"x", "b.pkl": b"y"}, kind="dataset")
    assert "2 files that could be 'unaligned_50.pkl'" in refused("data", "fetch", "mosei")
    hub.add(str(MELD.hub), {"meld_train.pkl": b"x", "meld_dev.pkl": b"y"}, kind="dataset")
    assert "has no 'meld_valid.pkl'" in refused("data", "fetch", "meld")
    assert "no features on the hub" in refused("data", "fetch", "synthetic-erc")
    hub.add(str(MOSEI.hub), {NAME: b"x"}, kind="dataset")
    hub.repos["dataset", str(MOSEI.hub)].files[NAME] = b"not a pickle"
    assert NAME in refused("data", "prepare", "mosei")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("data", "fetch", "meld")


def test_no_network_is_said_in_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = refused("train", "--backbone", "tiny-llama", "--dataset", "mosei", "--output", "/nowhere/run")
    assert "not on this machine" in message
    assert "--source" in message


def test_a_description_may_name_a_repository(hub: HubServer, tmp_path: Path):
    content = mosei_file()
    hub.add("someone/features", {"mine.pkl": content}, kind="dataset")
    text = "name: mine\ntask: msa\nlayout: msa-pickle\nrange: [-3, 3]\nfiles: mine.pkl\nhub: someone/features\n"
    (tmp_path / "mine.yaml").write_text(text)
    spec: DatasetSpec = resolve_dataset(str(tmp_path / "mine.yaml"))
    source = with_features(spec, QUIET).source
    assert source is not None
    assert (source / "mine.pkl").read_bytes() == content


@pytest.mark.slow
def test_train_without_a_source_finds_the_features(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command line from the download to the report; then evaluated with the hub switched off."""
    hub.add(str(MOSEI.hub), {NAME: mosei_file()}, kind="dataset")
    train = ["train", "--backbone", "tiny-llama", "--dataset", "mosei", "--epochs", "1", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, train)
    assert result.exit_code == 0, result.exception
    assert "downloading 1 file " in result.stderr
    assert hub.downloads(NAME) == [None]
    assert json.loads((tmp_path / "seed-1111" / "report.json").read_text())["dataset"] == "mosei"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--format", "json"])
    assert json.loads(result.stdout)["samples"] == 12
    assert hub.downloads(NAME) == [None]
