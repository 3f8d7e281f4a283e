"""Temperature, reliability and calibration error on distributions whose answers are known; and on a trained run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from msekit.data.catalogue import DATASETS
from msekit.evaluation.reliability import answers, calibration_error, fit_temperature, reliability, tempered
from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.studies.calibrate import calibrate
from msekit.training.loop import train


def test_a_temperature_of_one_changes_nothing():
    log = np.log([[0.2, 0.8], [0.5, 0.5]])
    assert tempered(log, 1.0) == pytest.approx(np.exp(log))
    assert tempered(log, 0.5)[0] == pytest.approx([0.04 / 0.68, 0.64 / 0.68])


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true_temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 3
    shares = tempered(logits, true_temperature)
    truth = (shares.cumsum(axis=1) < rng.random((len(shares), 1))).sum(axis=1)
    assert fit_temperature(logits, truth) == pytest.approx(true_temperature, rel=0.05)


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    bins = reliability(confidence, right)
    assert [(one.low, one.samples, one.accuracy) for one in bins] == [(0.5, 2, 0.5), (0.9, 2, 1.0)]
    assert calibration_error(bins) == pytest.approx(0.05)


def test_bins_take_their_upper_edge_and_every_sample():
    confidence = np.array([0.0, 0.1, 0.100001, 1.0])
    bins = reliability(confidence, np.ones(4, dtype=bool))
    assert [(round(one.low, 1), one.samples) for one in bins] == [(0.0, 2), (0.1, 1), (0.9, 1)]


@pytest.mark.parametrize(
    ("name", "right", "expected"),
    [("mosei", [True, False, True], [0.9, 0.6, 0.8]), ("sims-v2", [True, True, False], [0.7, 0.7, 0.7])],
)
def test_intensities_are_checked_by_the_two_way_answer(name, right, expected):
    """A truth of 0 is positive for MOSEI, not positive for SIMS."""
    distribution = np.array([[0.1, 0.6, 0.3], [0.6, 0.1, 0.3], [0.2, 0.1, 0.7]])
    confidence, found = answers(distribution, np.array([-1.0, 0.0, 1.0]), np.zeros(3), DATASETS[name])
    assert found.tolist() == right
    assert confidence == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["synthetic-msa", "synthetic-erc"])
def test_estimate_and_temperature_come_from_validation(tmp_path: Path, dataset: str):
    given = {"backbone": "tiny-llama", "dataset": dataset, "output": tmp_path / "seed-1", "data": {"limit_train": 64}}
    given |= {"optim": {"epochs": 1}, "evaluation": {"bootstrap": 0, "estimate": "greedy"}}
    trained = train(resolve(given, task=dataset[-3:]), reporter=Reporter(quiet=True))
    report = calibrate(tmp_path / "seed-1", reporter=Reporter(quiet=True))
    assert report["metrics"]["greedy"] == trained["metrics"]
    key, sign = report["key_metric"], -1 if dataset.endswith("msa") else 1
    assert sign * report["valid"][report["chosen"]][key] == max(sign * each[key] for each in report["valid"].values())
    assert ("mean, tempered" in report["metrics"]) == dataset.endswith("msa")
    assert 0.05 < report["temperature"] < 20
    assert sum(one["samples"] for one in report["calibration"]["tempered"]["bins"]) == report["samples"] == 320
    assert json.loads((tmp_path / "seed-1" / "calibration.json").read_text()) == report
    assert trained["integrity"]["metrics"].keys() == trained["metrics"].keys()
