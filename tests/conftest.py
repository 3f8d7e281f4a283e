"""Shared fixtures: an own cache, no network, the tiny backbone, and the real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# before any of our imports: nothing may reach out, and two test processes must not fight over the cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this session alone; set in the environment, so that child processes use it too."""
    folder = tmp_path_factory.mktemp("msekit-cache")
    os.environ["MSEKIT_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets, or a skip."""
    folder = Path(os.environ.get("MSEKIT_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MSEKIT_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny(own_cache: Path):
    """The tiny random backbone, loaded once."""
    from msekit.backbones.load import load_backbone

    return load_backbone("tiny-llama", device="cpu")
