"""Parts that other packages add: the example package in `tests/example_package/`, as an installer would put it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import msekit
from msekit import added
from msekit.adapters.sizes import ADAPTERS, AdapterEntry
from msekit.api.given_data import write_given
from msekit.errors import MsekitError

EXAMPLE = Path(__file__).parent / "example_package"
LABELS = ("calm", "excited")
SHORT = {"recipe": "kit", "epochs": 1, "evaluation": {"bootstrap": 0, "integrity": False}, "quiet": True}


def install(site: Path) -> None:
    """What `pip install tests/example_package` leaves in site-packages: the module, and its entry points."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read pyproject.toml by itself")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    record = site / f"{project['name']}-{project['version']}.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = (f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups)
    (record / "entry_points.txt").write_text("\n".join(lines))
    shutil.copy(EXAMPLE / "loudness.py", site)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The package on this process's path; its entries are forgotten afterwards."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    added.added.cache_clear()
    yield tmp_path / "site"
    added.added.cache_clear()
    sys.modules.pop("loudness", None)
    from msekit.baselines.catalogue import BASELINES
    from msekit.evaluation.metrics import METRICS
    from msekit.media.added_extractors import EXTRACTORS

    for table, name in ((ADAPTERS, "loudest"), (BASELINES, "averages"), (METRICS, "kappa"), (EXTRACTORS, "energy")):
        table.pop(name, None)


def moods() -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        frames = rng.normal(2.0 * (number % 2), 1.0, size=(6, 4)).astype(np.float32)
        rows.append({"id": f"clip{number}", "text": "Here we are.", "label": LABELS[number % 2], "audio": frames})
        rows[-1]["split"] = ("train", "train", "train", "valid", "test")[number // 2 % 5]
    return write_given(rows)


@pytest.mark.slow
def test_an_added_adapter_and_metric_train_and_load_again(tmp_path: Path, own_cache, installed):
    from sklearn.metrics import cohen_kappa_score

    metrics = ("kappa", "acc")
    result = msekit.train(
        "tiny-llama", moods(), labels=LABELS, metrics=metrics, adapter="loudest", output=tmp_path / "run", **SHORT
    )
    assert result.report["adapter"] == "loudest"
    assert result.report["trainable_parameters"] == 4 * 4 * result.plug_in.backbone.text_dim
    lines = [json.loads(line) for line in (result.folder / "predictions-test.jsonl").read_text().splitlines()]
    oracle = cohen_kappa_score([line["truth"] for line in lines], [line["prediction"] for line in lines])
    assert result.metrics["kappa"] == pytest.approx(0.0 if np.isnan(oracle) else oracle)
    assert list(result.metrics) == list(metrics)
    assert result.plug_in.predict("Here we are.", audio=np.ones((3, 4))).prediction in LABELS


@pytest.mark.slow
def test_an_added_baseline_is_one_of_the_command_line(tmp_path: Path, own_cache, installed):
    description = tmp_path / "moods.yaml"
    description.write_text(f"name: moods\ntask: erc\nlayout: folder\nsource: {moods()}\nlabels: [calm, excited]\n")
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1])])
    arguments = ["baseline", "averages", "--dataset", str(description), "--epochs", "1", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "msekit", *arguments, "--output", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "seed-1111" / "report.json").read_text())["adapter"] == "averages"


def test_an_added_extractor_hears_clips(tmp_path: Path, installed):
    pytest.importorskip("imageio_ffmpeg", reason="the extra msekit[media] is not installed")
    from msekit.media.audio import audio_extractor
    from msekit.media.extract import features_of
    from msekit.testing.drawn_clips import voice, write_wav

    path = write_wav(tmp_path / "a.wav", voice(1.0, rising=True))
    features_LD = features_of(path, "audio", audio_extractor("energy"))
    assert features_LD.shape == (10, 1)
    assert (features_LD > 0).all()


def test_names_that_nobody_adds_are_refused_with_all_that_there_are(tmp_path: Path, own_cache, installed):
    with pytest.raises(MsekitError, match=r"there is no adapter 'loudes'.*loudest"):
        msekit.train("tiny-llama", "synthetic-erc", adapter="loudes", output=tmp_path)
    from msekit.media.audio import audio_extractor

    with pytest.raises(MsekitError, match=r"no extractor 'energie' for audio.*energy"):
        audio_extractor("energie")


def test_an_entry_of_the_wrong_kind_or_one_that_breaks_is_named(installed, monkeypatch):
    module = installed / "loudness.py"
    module.write_text("LOUDEST = 3\n")
    with pytest.raises(MsekitError, match=r"'loudest' of msekit.adapters is a int, not a AdapterEntry"):
        ADAPTERS["loudest"]
    sys.modules.pop("loudness")
    module.write_text("import nothing_of_that_name\n")
    with pytest.raises(MsekitError, match=r"cannot be loaded: ModuleNotFoundError"):
        ADAPTERS["loudest"]


def test_msekits_own_names_stay_its_own():
    assert isinstance(ADAPTERS["mse"], AdapterEntry)
    with pytest.raises(KeyError):
        ADAPTERS["nobody's"]


@pytest.mark.slow
def test_nothing_is_looked_for_without_a_strange_name():
    program = "import sys, importlib.metadata as m"
    program += "; m.entry_points = lambda group: sys.exit('looked') if group.startswith('msekit') else ()"
    program += "; import msekit.cli.main, msekit.settings.config; from msekit.adapters.sizes import ADAPTERS"
    program += "; assert 'mse' in ADAPTERS; from typer.testing import CliRunner"
    program += "; assert CliRunner().invoke(msekit.cli.main.app, ['train', '--help']).exit_code == 0"
    subprocess.run([sys.executable, "-c", program], check=True)
