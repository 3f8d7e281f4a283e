"""The local hub answers the real client as the hub does: otherwise the tests that use it show nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

SMALL, BIG = b'{"small": 1}', bytes(range(256)) * 400


def test_the_real_client_downloads(hub: HubServer):
    repo = hub.add("someone/model", {"config.json": SMALL, "sub/model.safetensors": BIG})
    folder = Path(snapshot_download("someone/model"))
    assert (folder / "config.json").read_bytes() == SMALL
    assert (folder / "sub" / "model.safetensors").read_bytes() == BIG
    assert folder.name == repo.commit
    hub.add("someone/data", {"a.pkl": BIG}, kind="dataset")
    assert Path(hf_hub_download("someone/data", "a.pkl", repo_type="dataset")).read_bytes() == BIG
    (file,) = HfApi().dataset_info("someone/data", files_metadata=True).siblings or ()
    assert file.lfs is not None
    assert file.lfs.size == len(BIG)


def test_the_real_client_takes_up_a_dropped_connection(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # it keeps whole chunks alone
    hub.add("someone/model", {"model.safetensors": BIG})
    hub.drop["model.safetensors"] = 50_000
    assert Path(hf_hub_download("someone/model", "model.safetensors")).read_bytes() == BIG
    assert hub.downloads("model.safetensors") == [None, "bytes=50000-"]


def test_the_real_client_is_refused_as_by_the_hub(hub: HubServer):
    hub.add("someone/model", {"config.json": SMALL})
    hub.add("someone/closed", {"config.json": SMALL}, gated=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("someone/nothing")
    with pytest.raises(GatedRepoError):
        snapshot_download("someone/closed")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info("someone/model", revision="v9")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("someone/model", "other.json")


def test_the_real_client_uploads(hub: HubServer, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "adapter.json").write_bytes(SMALL)
    (tmp_path / "run" / "adapter.safetensors").write_bytes(BIG)
    api = HfApi()
    api.create_repo("tester/adapter", exist_ok=True)
    api.create_repo("tester/adapter", exist_ok=True)
    commit = api.upload_folder(repo_id="tester/adapter", folder_path=tmp_path / "run")
    assert hub.repos["model", "tester/adapter"].files == {"adapter.json": SMALL, "adapter.safetensors": BIG}
    assert commit.oid == hub.repos["model", "tester/adapter"].commit
    assert (Path(snapshot_download("tester/adapter")) / "adapter.safetensors").read_bytes() == BIG
