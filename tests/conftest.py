"""Shared fixtures: an own cache, no network, the tiny backbone, and the real data where it is at hand."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

# before any of our imports: nothing may reach out, and two test processes must not fight over the cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell that starts the tests in the background has Ctrl-C ignored, by every child too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first: one of them alone at the end would leave the other worker idle."""
    heavy: Counter[Path] = Counter()
    for item in items:
        heavy[item.path] += 3 * ("multiprocess" in item.keywords) + ("slow" in item.keywords)
    items.sort(key=lambda item: -heavy[item.path])


@pytest.fixture(scope="session", autouse=True)
def bf16_unit() -> None:
    """`MSEKIT_TEST_BF16=off` takes this CPU for one without such a unit (`make numerics`)."""
    if os.environ.get("MSEKIT_TEST_BF16") == "off":
        from msekit.backbones import precision

        own = precision.abilities
        precision.abilities = lambda: {unit: has for unit, has in own().items() if unit not in precision.BF16_UNITS}


@pytest.fixture(scope="session", autouse=True)
def as_on_a_gpu() -> Iterator[None]:
    """`MSEKIT_TEST_AS_ON_GPU=1` computes as a GPU would (`make gpu-like`)."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("MSEKIT_TEST_AS_ON_GPU") == "1":
            from as_on_gpu import computing_as_on_a_gpu

            computing_as_on_a_gpu(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_epochs_alone() -> None:
    """An opinion trains alone for the fewest epochs here; on sets as small as the tests' it would be for the most."""
    from msekit.training import opinion

    opinion.MOST = opinion.FEWEST


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


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> str:
    """The real small LLM's name, in the user's own cache."""
    user_cache = Path.home() / ".cache" / "msekit"
    if not (user_cache / "backbones" / "smollm2-135m-1").is_dir():
        pytest.skip("smollm2-135m is not in the user's cache; `make train` fetches it")
    monkeypatch.setenv("MSEKIT_CACHE", str(user_cache))
    return "smollm2-135m"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local hub; this process's huggingface_hub client, and that of its children, talks to it alone."""
    from huggingface_hub import constants

    with HubServer() as server:
        environment = server.environment(tmp_path / "hf-home")
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        # the client reads its environment when it is imported, which may have happened
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-home" / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf-home"))
        yield server
