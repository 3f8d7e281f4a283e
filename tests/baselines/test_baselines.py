"""Baselines: their fusion by its formula, what they can and cannot hear, and the folder they leave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from msekit.baselines.catalogue import BASELINES
from msekit.baselines.models import LowRankFusion, TensorFusion
from msekit.baselines.rival_batch import RivalBatch, Sizes
from msekit.baselines.run import run_baseline
from msekit.baselines.texts import words_of
from msekit.baselines.trainer import network_of
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.reports.aggregate import aggregate
from msekit.reports.compare import compare
from msekit.reports.html import html_report
from msekit.runs.report import collect

QUIET = Reporter(quiet=True)
NETWORKS = [name for name, entry in BASELINES.items() if entry.network]
WITHOUT_NEEDS = [name for name in NETWORKS if not BASELINES[name].needs]
WIDTHS = {"audio": 6, "vision": 5}
SIZES = Sizes(20, WIDTHS, 4)


def batch(size: int = 3) -> RivalBatch:
    generator = torch.Generator().manual_seed(0)
    return RivalBatch(
        index=torch.arange(size),
        text_ids=torch.randint(2, 20, (size, 4), generator=generator),
        text_lengths=torch.tensor([4, 2, 1][:size]),
        audio=torch.randn(size, 7, 6, generator=generator),
        audio_lengths=torch.tensor([7, 3, 0][:size]),
        vision=torch.randn(size, 2, 5, generator=generator),
        vision_lengths=torch.tensor([2, 1, 2][:size]),
        truth=torch.zeros(size),
    )


@pytest.mark.parametrize("name", WITHOUT_NEEDS)
def test_padding_changes_nothing_and_all_is_heard(name):
    torch.manual_seed(0)
    model, given = network_of(name)(SIZES).eval(), batch()
    outputs = model(given)
    assert outputs.shape == (3, 4)
    for modality in WIDTHS:
        changed = batch()
        frames = getattr(changed, modality)
        setattr(changed, modality, torch.cat([frames, torch.full((3, 2, frames.shape[2]), 9.0)], dim=1))
        assert torch.allclose(model(changed), outputs, atol=1e-6)
        setattr(changed, modality, frames + 1)
        assert (model(changed) - outputs)[0].abs().max() > 1e-6


def test_tensor_fusion_is_the_outer_product():
    torch.manual_seed(0)
    model, given = TensorFusion(SIZES).eval(), batch()
    text, audio, vision = model.subnetworks(given)
    product = torch.einsum("bi,bj,bk->bijk", text, audio, vision).flatten(1)
    expected = model.output(torch.relu(model.hidden(product)))
    assert torch.allclose(model(given), expected, atol=1e-6)
    assert all((state[:, -1] == 1).all() for state in (text, audio, vision))


def test_low_rank_fusion_is_the_product_with_the_factored_tensor():
    torch.manual_seed(0)
    model, given = LowRankFusion(SIZES).eval(), batch()
    states = model.subnetworks(given)
    weights = torch.einsum("rih,rjh,rkh->ijkh", *model.factors)
    fused = torch.einsum("bi,bj,bk,ijkh->bh", *states, weights)
    assert torch.allclose(model(given), model.output(fused), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_NEEDS)
def test_both_modalities_are_learned(name, tmp_path: Path):
    """synthetic-erc: .25 by text, .50 by one modality; shuffled, nothing is left."""
    report = run_baseline(name, DATASETS["synthetic-erc"], 1, tmp_path / "seed-1", epochs=6, reporter=QUIET)
    assert report["metrics"]["acc"] > 0.65
    assert report["integrity"]["metrics"]["acc"] < 0.4


def test_text_alone_is_at_chance_where_it_says_nothing(tmp_path: Path):
    report = run_baseline("text-linear", DATASETS["synthetic-erc"], 1, tmp_path / "seed-1", reporter=QUIET)
    assert report["metrics"]["acc"] == pytest.approx(0.25, abs=0.05)
    assert report["integrity"] is None


def test_the_folder_is_one_that_reports_and_comparisons_read(tmp_path: Path):
    for name in ("tfn", "text-linear"):
        spec = DATASETS["synthetic-msa"]
        run_baseline(name, spec, 1, tmp_path / name / "seed-1", epochs=2, limit_train=64, reporter=QUIET)
    (group,) = aggregate(collect([tmp_path / "tfn"]))
    assert group.metrics["mae"].shuffled is not None
    assert compare(tmp_path / "text-linear", tmp_path / "tfn", repeats=5)["metrics"]["mae"]["interval"]
    assert "true and predicted intensity" in html_report([tmp_path / "tfn", tmp_path / "text-linear"])
    values = [json.loads(line)["prediction"] for line in (tmp_path / "tfn/seed-1/predictions-test.jsonl").open()]
    assert np.abs(values).max() <= 3


def test_a_seed_gives_the_same_numbers_again(tmp_path: Path):
    found = [
        run_baseline("lmf", DATASETS["synthetic-msa"], 7, tmp_path / str(n), epochs=2, limit_train=64, reporter=QUIET)[
            "metrics"
        ]
        for n in range(2)
    ]
    assert found[0] == found[1]


def test_words():
    assert words_of("Don't stop!", "en") == ["don", "t", "stop"]
    assert words_of("开心", "zh") == ["开", "心"]


def test_the_command_runs_and_reuses(tmp_path: Path):
    arguments = ["baseline", "ef-lstm", "--dataset", "synthetic-erc", "--seeds", "1,2", "--epochs", "1"]
    arguments += ["--limit-train", "32", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 seeds (1, 2)" in done.stdout
    assert "the epoch selected on validation; text: words; " in " ".join(done.stdout.split())
    before = (tmp_path / "seed-1" / "report.json").stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (tmp_path / "seed-1" / "report.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change", [{"name": "tfn"}, {"limit_train": 48}, {"epochs": 2}, {"spec": DATASETS["synthetic-msa"]}]
)
def test_a_finished_folder_answers_for_itself_alone(tmp_path: Path, change):
    asked = {"name": "ef-lstm", "spec": DATASETS["synthetic-erc"], "epochs": 1, "limit_train": 32}
    run_baseline(seed=1, output=tmp_path, reporter=QUIET, **asked)
    with pytest.raises(MsekitError, match="another baseline"):
        run_baseline(seed=1, output=tmp_path, reporter=QUIET, **asked | change)


def test_text_of_one_class_is_a_clear_error(tmp_path: Path):
    with pytest.raises(MsekitError, match="one class"):
        run_baseline("text-linear", DATASETS["synthetic-erc"], 1, tmp_path, limit_train=1, reporter=QUIET)
    assert not list(tmp_path.iterdir())
