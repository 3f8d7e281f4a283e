"""Comparing runs: known differences, equal runs, p-values that behave, runs that cannot be compared."""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import pytest
from scipy.stats import permutation_test
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.evaluation.metrics import erc_metrics
from msekit.reports.compare import compare, paired_bootstrap, randomisation

LABELS = ("joy", "anger", "fear")
METRICS = partial(erc_metrics, labels=LABELS)
TRUTH = np.random.default_rng(1).integers(0, 3, 200)


def guesses(right: float, seed: int, truth=TRUTH) -> np.ndarray:
    """Answers of which about this share is right."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(truth)) < right, truth, (truth + 1) % 3)


def write(folder, predictions, seed=1, truth=TRUTH, ids=None):
    """A finished run's files."""
    folder = folder / f"seed-{seed}"
    folder.mkdir(parents=True)
    metrics = METRICS(truth, predictions)
    common = {"dataset": "toy", "backbone": "b", "adapter": "mse", "recipe": "kit", "estimate": "greedy"}
    (folder / "report.json").write_text(json.dumps(common | {"split": "test", "seed": seed, "metrics": metrics}))
    spec = {"name": "toy", "task": "erc", "layout": "erc-pickle", "labels": list(LABELS)}
    (folder / "adapter.json").write_text(json.dumps({"dataset": spec}))
    names = ids or [str(number) for number in range(len(truth))]
    lines = [
        {"id": name, "truth": LABELS[t], "prediction": LABELS[p], "scores": dict.fromkeys(LABELS, 1 / 3)}
        for name, t, p in zip(names, truth, predictions, strict=True)
    ]
    (folder / "predictions-test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_clear_difference_is_found(tmp_path):
    for seed in (1, 2, 3):
        write(tmp_path / "a", guesses(0.5, seed), seed)
        write(tmp_path / "b", guesses(0.8, seed + 10), seed)
    document = compare(tmp_path / "a", tmp_path / "b", repeats=200)
    acc = document["metrics"]["acc"]
    assert acc["difference"] == pytest.approx(acc["b"] - acc["a"]) == pytest.approx(0.3, abs=0.08)
    assert 0 < acc["interval"][0] < acc["difference"] < acc["interval"][1]
    assert acc["p_samples"] == pytest.approx(1 / 201)
    assert acc["p_seeds"] < 0.05
    assert document["seeds"]["paired"] == [1, 2, 3]


def test_without_scipy_the_t_test_alone_is_left_out_and_that_is_said(tmp_path, monkeypatch):
    for seed in (1, 2):
        write(tmp_path / "a", guesses(0.5, seed), seed)
        write(tmp_path / "b", guesses(0.8, seed + 10), seed)
    monkeypatch.setitem(sys.modules, "scipy", None)
    document = compare(tmp_path / "a", tmp_path / "b", repeats=50)
    assert document["metrics"]["acc"]["p_seeds"] is None
    assert document["metrics"]["acc"]["p_samples"] is not None
    assert any("msekit[stats]" in warning for warning in document["warnings"])
    (one,) = {len(compare(tmp_path / "a" / "seed-1", tmp_path / "b" / "seed-1", 9)["warnings"])}
    assert one == 0, "nothing is missed where there is one seed"


def test_a_run_does_not_differ_from_itself(tmp_path):
    run = write(tmp_path, guesses(0.6, 0))
    acc = compare(run, run, repeats=50)["metrics"]["acc"]
    assert (acc["difference"], acc["interval"], acc["p_samples"], acc["p_seeds"]) == (0.0, [0.0, 0.0], 1.0, None)


def test_the_p_value_is_that_of_scipys_permutation_test():
    a, b = guesses(0.6, 0), guesses(0.66, 3)
    ours = randomisation(METRICS, TRUTH, a[None], b[None], 2000)["acc"]
    right = [(each == TRUTH).astype(float) for each in (a, b)]
    scipys = permutation_test(
        right,
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2000,
        rng=0,
    )
    assert ours == pytest.approx(scipys.pvalue, abs=0.04)
    assert 0.02 < ours < 0.9


def test_chance_differences_are_seldom_called_real():
    """Of 40 comparisons of equally good runs, about two fall below .05."""
    values = [
        randomisation(METRICS, TRUTH, guesses(0.6, s)[None], guesses(0.6, s + 99)[None], 100)["acc"] for s in range(40)
    ]
    assert sum(value < 0.05 for value in values) <= 6
    assert np.mean(values) == pytest.approx(0.5, abs=0.2)


def test_the_interval_narrows_with_samples():
    truth = np.tile(TRUTH, 16)
    widths = []
    for each in (TRUTH, truth):
        a, b = guesses(0.5, 0, each), guesses(0.7, 1, each)
        low, high = paired_bootstrap(METRICS, each, a[None], b[None], 200)["acc"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)


def test_other_samples_or_seed_counts(tmp_path):
    first = write(tmp_path / "a", guesses(0.6, 0))
    other = write(tmp_path / "b", guesses(0.6, 0), ids=[f"x{number}" for number in range(200)])
    with pytest.raises(MsekitError, match="same samples"):
        compare(first, other)
    write(tmp_path / "c", guesses(0.6, 1), 1)
    write(tmp_path / "c", guesses(0.7, 2), 2)
    acc = compare(first, tmp_path / "c", repeats=20)["metrics"]["acc"]
    assert acc["p_samples"] is None
    assert acc["interval"] is not None


def test_damaged_predictions_are_named(tmp_path):
    run = write(tmp_path, guesses(0.6, 0))
    (run / "predictions-test.jsonl").write_text("{")
    with pytest.raises(MsekitError, match=r"predictions-test\.jsonl"):
        compare(run, run)


def test_the_command(tmp_path):
    run, other = write(tmp_path / "a", guesses(0.6, 0)), write(tmp_path / "b", guesses(0.7, 1))
    done = CliRunner().invoke(app, ["compare", str(run), str(other), "--repeats", "20", "--format", "json"])
    assert json.loads(done.stdout)["metrics"]["wf1"]["difference"] is not None
    shown = CliRunner().invoke(app, ["compare", str(run), str(other), "--repeats", "20"])
    assert "B - A" in shown.stdout


def test_a_side_of_mixed_runs_is_refused(tmp_path):
    for seed in (1, 2):
        write(tmp_path / "a", guesses(0.5, seed), seed)
    other = tmp_path / "a" / "seed-2" / "report.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"adapter": "linear"}))
    with pytest.raises(MsekitError, match="different settings"):
        compare(tmp_path / "a", tmp_path / "a" / "seed-1", repeats=5)


def test_what_makes_a_sides_seeds_less_comparable_is_told(tmp_path):
    for seed in (1, 2):
        folder = write(tmp_path / "a", guesses(0.5, seed), seed)
        (folder / "config.yaml").write_text(f"optim: {{epochs: {seed}}}\n")
    document = compare(tmp_path / "a", tmp_path / "a", repeats=5)
    told = "the seeds were run with different optim.epochs: 1, 2"
    assert document["warnings"] == [f"A: {told}", f"B: {told}"]


def test_other_label_sets_are_not_compared(tmp_path):
    first, second = (write(tmp_path / name, guesses(0.5, 1)) for name in "ab")
    described = json.loads((second / "adapter.json").read_text())
    described["dataset"]["labels"] = ["joy", "anger", "fear", "calm"]
    (second / "adapter.json").write_text(json.dumps(described))
    with pytest.raises(MsekitError, match="labels"):
        compare(first, second, repeats=5)
