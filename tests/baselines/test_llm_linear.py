"""llm-linear: what it reads, by what it chooses, and where it is shown."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import StatesWanted, read_states
from msekit.baselines.llm_linear import fits, frame_statistics, joined
from msekit.baselines.run import run_baseline
from msekit.baselines.text_linear import STRENGTHS
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.errors import MsekitError
from msekit.model.wording import CUES
from msekit.reporter import Reporter
from msekit.runs.report import read_report, write_report

QUIET = Reporter(quiet=True)
SIZES = {"train": 300, "valid": 60, "test": 60}


def llm_linear(spec: DatasetSpec, folder: Path, limit_train: int | None = None):
    return run_baseline("llm-linear", spec, 1, folder, backbone="tiny-llama", limit_train=limit_train, reporter=QUIET)


def toy(tiny: Backbone, folder: Path) -> DatasetSpec:
    """Intensities that are a linear function of a state of the LLM's last layer; audio and vision say nothing."""
    generator = np.random.default_rng(0)
    weights_d = torch.randn(tiny.text_dim, generator=torch.Generator().manual_seed(0))
    wanted = StatesWanted((2,), tuple(tiny.encode(CUES["msa", "en"])))
    rows, scale = {}, (0.0, 1.0)
    for split, size in SIZES.items():
        letters = generator.integers(97, 123, (size, 30))
        texts = ["".join(map(chr, row[: generator.integers(5, 30)])) for row in letters]
        states = read_states(tiny, tiny.encode_all(texts), None, wanted)[:, 0, 0]
        raw = (states @ weights_d).numpy()
        scale = (raw.mean(), raw.std()) if split == "train" else scale
        rows[split] = {
            "raw_text": texts,
            "audio": generator.normal(size=(size, 3, 2)),
            "vision": generator.normal(size=(size, 3, 2)),
            "audio_lengths": np.full(size, 3),
            "vision_lengths": np.full(size, 3),
            "regression_labels": np.clip((raw - scale[0]) / scale[1], -3, 3),
        }
    (folder / "toy.pkl").write_bytes(pickle.dumps(rows))
    return DatasetSpec(name="toy", task="msa", layout="msa-pickle", range=(-3, 3), source=folder / "toy.pkl")


def test_it_hears_what_statistics_hold(tmp_path: Path):
    """synthetic-erc: .25 by text, .50 by one modality."""
    report = llm_linear(DATASETS["synthetic-erc"], tmp_path / "seed-1")
    assert report["metrics"]["acc"] > 0.65
    assert report["integrity"]["metrics"]["acc"] < 0.4
    assert report["backbone"] == "tiny-llama"
    assert len(report["backbone_fingerprint"]) == 32
    assert report["reads"] == ["text", "audio", "vision"]
    assert report["strength"] in STRENGTHS
    assert report["valid_by_layer"].keys() == {"0", "2"}


def test_it_reads_what_the_llm_makes_of_a_text(tiny: Backbone, tmp_path: Path):
    spec = toy(tiny, tmp_path)
    report = llm_linear(spec, tmp_path / "seed-1")
    assert report["metrics"]["corr"] > 0.9
    assert report["layer"] == 2
    assert report["reads"] == ["text"]
    assert report["integrity"]["metrics"] == report["metrics"]
    words = run_baseline("text-linear", spec, 1, tmp_path / "words", reporter=QUIET)
    assert words["metrics"]["mae"] > 2 * report["metrics"]["mae"]
    again = llm_linear(spec, tmp_path / "again")
    assert again["metrics"] == report["metrics"], "nothing is drawn"


def test_statistics_of_frames():
    frames_LD = np.array([[0.0, 9.0], [1.0, -9.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0]], np.float32)
    mean, deviation, low, high = frame_statistics(frames_LD).reshape(4, 2)
    assert mean == pytest.approx([2.5, 0.0])
    assert deviation == pytest.approx([1.7078, np.sqrt(50 / 6)], rel=1e-3), "far values are cut at 5"
    assert (low[0], high[0]) == pytest.approx((1.0, 4.0))
    assert (frame_statistics(np.zeros((0, 3), np.float32)) == np.zeros(12)).all()


def test_blocks_share_a_variance_of_one():
    generator = np.random.default_rng(0)
    blocks = [
        {"train": generator.normal(5, 3, (200, width)), "test": generator.normal(5, 3, (50, width))}
        for width in (30, 2)
    ]
    blocks[0]["train"][:, 0] = blocks[0]["test"][:, 0] = 1e4  # constant
    chosen = np.arange(0, 200, 2)
    for even, share in ((False, 2 / 32), (True, 1 / 2)):
        whole = joined(blocks, chosen, even)
        assert whole["train"].shape == (100, 32)
        assert whole["test"].shape == (50, 32)
        assert whole["train"].mean(axis=0) == pytest.approx(np.zeros(32), abs=1e-6)
        assert (whole["train"][:, 0] == 0).all()
        assert whole["train"][:, 30:].var(axis=0).sum() == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_ridge_is_scikit_learns(shape: tuple[int, int]):
    from sklearn.linear_model import Ridge

    generator = np.random.default_rng(0)
    x_NF = generator.normal(size=shape).astype(np.float32)
    x_NF -= x_NF.mean(axis=0)
    labels_N, new_NF = x_NF[:, 0] + generator.normal(size=len(x_NF)), generator.normal(size=(5, shape[1]))
    for strength, predict in fits(DATASETS["synthetic-msa"], x_NF, labels_N):
        expected = Ridge(alpha=1 / strength).fit(x_NF, labels_N).predict(new_NF)
        assert predict(new_NF) == pytest.approx(expected.clip(-3, 3), abs=1e-4)


def test_a_backbone_too_many_or_too_few(tmp_path: Path):
    for name, backbone, what in (("llm-linear", None, "none is named"), ("tfn", "tiny-llama", "reads no LLM")):
        with pytest.raises(MsekitError, match=what):
            run_baseline(name, DATASETS["synthetic-erc"], 1, tmp_path, backbone=backbone, reporter=QUIET)
    done = CliRunner().invoke(app, ["baseline", "llm-linear", "--dataset", "synthetic-erc"])
    assert isinstance(done.exception, MsekitError)
    with pytest.raises(MsekitError, match="of one class"):
        llm_linear(DATASETS["synthetic-erc"], tmp_path / "seed-1", limit_train=1)


def test_reports_show_it_beside_runs_of_the_same_backbone_and_data(tmp_path: Path):
    runs = tmp_path / "runs"
    train = ["train", "--dataset", "synthetic-erc", "--backbone", "tiny-llama", "--output", str(runs / "plug-in")]
    short = ["--seeds", "1", "--set", "optim.epochs=1", "--set", "data.limit_train=32"]
    done = CliRunner().invoke(app, [*train, *short], catch_exceptions=False)
    assert done.exit_code == 0
    assert "llm-linear" not in done.stdout

    def adapters() -> list[str]:
        shown = CliRunner().invoke(app, ["report", str(runs / "plug-in"), "--format", "json"], catch_exceptions=False)
        return [group["adapter"] for group in json.loads(shown.stdout)]

    assert adapters() == ["mse-states"]
    spec = DATASETS["synthetic-erc"]
    llm_linear(spec, runs / "other" / "seed-1", limit_train=48)
    run_baseline("text-linear", spec, 1, runs / "text" / "seed-1", limit_train=32, reporter=QUIET)
    (runs / "broken" / "seed-1").mkdir(parents=True)
    (runs / "broken" / "seed-1" / "report.json").write_text('{"adapter": "llm-linear"')
    assert adapters() == ["mse-states"]
    llm_linear(spec, runs / "bar" / "seed-1", limit_train=32)
    assert adapters() == ["mse-states", "llm-linear"]
    bar = read_report(runs / "bar" / "seed-1")
    write_report(runs / "bar" / "seed-1", bar.model_copy(update={"context": 3}))
    assert adapters() == ["mse-states"], "it read what was said before, and the run did not"
    write_report(runs / "bar" / "seed-1", bar)
    assert adapters() == ["mse-states", "llm-linear"]
    both = ["report", str(runs / "plug-in"), str(runs / "bar"), "--format", "markdown"]
    assert CliRunner().invoke(app, both, catch_exceptions=False).stdout.count("llm-linear") == 1
    again = [*train[:-1], str(runs / "second"), *short]
    assert "llm-linear on the same LLM and data: acc " in CliRunner().invoke(app, again, catch_exceptions=False).stdout
