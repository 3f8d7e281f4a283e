"""Averaging seeds: the weights are the mean, the ensemble is the mean of distributions, the best is validation's."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import msekit
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.labels import LabelSpace
from msekit.studies.merge_seeds import average_runs, ensemble_edges


def test_the_ensemble_has_the_average_distribution():
    labels = LabelSpace(DATASETS["mosei"], lambda text: [ord(character) for character in text], 0)
    generator = np.random.default_rng(0)
    members = [generator.normal(size=(5, len(labels.trie.token))) * 3 for _ in range(3)]
    expected = np.mean([labels.distribution(edges) for edges in members], axis=0)
    joined = ensemble_edges(labels, members)
    assert labels.distribution(joined) == pytest.approx(expected, abs=1e-12)
    assert labels.predict(joined, "mean") == pytest.approx(expected @ labels.values)
    assert np.exp(labels.log_probabilities(joined)).sum(axis=1) == pytest.approx(1)
    assert labels.predict(ensemble_edges(labels, [members[0]] * 2), "argmax") == pytest.approx(
        labels.predict(members[0], "argmax")
    )


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average") / "runs"
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "64"]
    arguments += ["--epochs", "1", "--seeds", "1,2", "--set", "evaluation.bootstrap=0", "--output", str(folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.slow
def test_average_beside_best_and_ensemble(seeds: Path, tmp_path: Path, tiny):
    result = CliRunner().invoke(app, ["average", str(seeds), "--output", str(tmp_path / "avg"), "--format", "json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    own = {seed: json.loads((seeds / f"seed-{seed}" / "report.json").read_text())["metrics"] for seed in (1, 2)}
    for run in document["runs"]:
        assert run["metrics"]["acc"] == pytest.approx(own[run["seed"]]["acc"])
    validation = {
        seed: json.loads((seeds / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()[-1])["valid"]["wf1"]
        for seed in (1, 2)
    }
    assert document["best"]["seed"] == max(validation, key=validation.__getitem__)
    assert document["samples"] == 320
    parts = [load_file(seeds / f"seed-{seed}" / "adapter.safetensors") for seed in (1, 2)]
    averaged = load_file(tmp_path / "avg" / "adapter.safetensors")
    for name, tensor in averaged.items():
        assert tensor == pytest.approx(((parts[0][name] + parts[1][name]) / 2).numpy(), abs=1e-6)
    assert msekit.load_run(tmp_path / "avg", tiny).predict("Well.").scores
    again = CliRunner().invoke(app, ["evaluate", str(tmp_path / "avg"), "--format", "json"])
    assert json.loads(again.stdout)["metrics"]["acc"] == pytest.approx(document["average"]["acc"])


@pytest.mark.slow
def test_runs_that_cannot_be_averaged(seeds: Path, tmp_path: Path):
    with pytest.raises(MsekitError, match="two runs or more"):
        average_runs([seeds / "seed-1", seeds / "seed-1"])
    other = Path(shutil.copytree(seeds / "seed-2", tmp_path / "other"))
    raw = json.loads((other / "adapter.json").read_text())
    raw["estimate"] = "argmax"
    (other / "adapter.json").write_text(json.dumps(raw))
    with pytest.raises(MsekitError, match="differ in estimate"):
        average_runs([seeds / "seed-1", other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["data_fingerprint", "lr"])
def test_runs_that_differ_in_more_than_their_seed(seeds: Path, tmp_path: Path, key: str):
    other = Path(shutil.copytree(seeds / "seed-2", tmp_path / "other"))
    if key == "lr":
        text = (other / "config.yaml").read_text()
        (other / "config.yaml").write_text(re.sub(r"lr: .*", "lr: 0.1234", text))
    else:
        raw = json.loads((other / "adapter.json").read_text()) | {key: "0" * 64}
        (other / "adapter.json").write_text(json.dumps(raw))
    with pytest.raises(MsekitError, match=f"differ in .*{key}"):
        average_runs([seeds / "seed-1", other])
