"""Metrics that a description asks for: against scikit-learn and scipy, and against MMSA's own definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.errors import MsekitError
from msekit.evaluation.metrics import METRICS, erc_metrics, goodness, higher_is_better, metrics_of, msa_metrics
from msekit.evaluation.units import show

LABELS = ("neutral", "joy", "anger", "fear")
ERC = tuple(name for name, metric in METRICS.items() if metric.on_request == "erc" and not metric.of_a_class)
MSA = tuple(name for name, metric in METRICS.items() if metric.on_request == "msa")


def spec(**said: object) -> DatasetSpec:
    whole: dict = {"name": "x", "task": "erc", "layout": "folder", "labels": LABELS}
    return DatasetSpec(**(whole | said))


@pytest.mark.parametrize("seed", range(4))
def test_emotions_against_scikit_learn(seed: int):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 4, 200), rng.integers(0, 3 + seed % 2, 200)
    names = (*ERC, "uar", "micro_f1_without:neutral", *(f"f1_of:{label}" for label in LABELS))
    ours = metrics_of(spec(metrics=names))(truth, prediction)
    assert list(ours) == list(names)
    assert ours["war"] == pytest.approx(sk.recall_score(truth, prediction, average="weighted"))
    assert ours["war"] == pytest.approx(sk.accuracy_score(truth, prediction))
    assert ours["uar"] == pytest.approx(sk.balanced_accuracy_score(truth, prediction))
    without = sk.f1_score(truth, prediction, labels=[1, 2, 3], average="micro")
    assert ours["micro_f1_without:neutral"] == pytest.approx(without)
    theirs = sk.precision_recall_fscore_support(truth, prediction, labels=range(4), zero_division=np.nan)
    for number, label in enumerate(LABELS):
        assert ours["per_class_recall"][label] == pytest.approx(theirs[1][number])
        precision = ours["per_class_precision"][label]
        assert np.isnan(theirs[0][number]) if precision is None else precision == pytest.approx(theirs[0][number])
        positive = sk.f1_score(truth == number, prediction == number)
        assert ours[f"f1_of:{label}"] == pytest.approx(positive)


@pytest.mark.parametrize("seed", range(3))
def test_intensities_against_scikit_learn_and_scipy(seed: int):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-3, 3, 120).round(1)
    prediction = (truth * rng.uniform(0.2, 1.4) + rng.normal(0, 1, 120)).clip(-3, 3).round(1)
    ours = msa_metrics(truth, prediction, "mosi", (*MSA, "corr"))
    assert ours["mse"] == pytest.approx(sk.mean_squared_error(truth, prediction))
    assert ours["corr"] == pytest.approx(stats.pearsonr(truth, prediction).statistic)
    # Lin 1989, by the correlation and the two kinds of bias
    scale, shift = truth.std() / prediction.std(), (truth.mean() - prediction.mean()) ** 2
    bias = 2 / (scale + 1 / scale + shift / (truth.std() * prediction.std()))
    assert ours["ccc"] == pytest.approx(stats.pearsonr(truth, prediction).statistic * bias)
    assert msa_metrics(truth, truth, "mosi", ("ccc", "acc3", "acc5")) == {"ccc": 1.0, "acc3": 1.0, "acc5": 1.0}


def mmsa_rounded(truth: np.ndarray, prediction: np.ndarray, most: int) -> float:
    """MOSI and MOSEI as MMSA counts them: clipped, rounded, equal."""
    clipped = [np.clip(values, a_min=-most, a_max=most) for values in (prediction, truth)]
    return float(np.sum(np.round(clipped[0]) == np.round(clipped[1])) / len(truth))


def mmsa_binned(truth: np.ndarray, prediction: np.ndarray, bounds: list[float]) -> float:
    """SIMS as MMSA counts it: clipped to [-1, 1], classes that hold their upper bound."""
    classes = []
    for values in (prediction, truth):
        values = np.clip(values, a_min=-1.0, a_max=1.0)
        held = values.copy()
        for number in range(len(bounds) - 1):
            held[np.logical_and(values > bounds[number], values <= bounds[number + 1])] = number
        classes.append(held)
    return float(np.sum(np.round(classes[0]) == np.round(classes[1])) / len(truth))


def test_mmsas_numbers_on_fixed_arrays():
    """0.5, 1.5 and 2.5 are rounded to even, ±0.1 and ±0.7 belong to the class below, values beyond are clipped."""
    truth = np.array([-3.0, -2.5, -1.5, -0.7, -0.5, -0.1, 0.0, 0.1, 0.5, 0.7, 1.0, 1.5, 2.5, 3.0])
    prediction = np.array([-2.0, -2.4, -0.5, -0.8, 0.5, 0.1, -0.1, 0.2, 1.5, 0.6, 1.4, 2.5, 3.4, 0.2])
    mosi = msa_metrics(truth, prediction, "mosi", ("acc3", "acc5", "acc7"))
    for most, name in ((1, "acc3"), (2, "acc5"), (3, "acc7")):
        assert mosi[name] == pytest.approx(mmsa_rounded(truth, prediction, most))
    assert (mosi["acc3"], mosi["acc5"], mosi["acc7"]) == pytest.approx((11 / 14, 11 / 14, 9 / 14))
    sims = msa_metrics(truth, prediction, "sims", ("acc2", "acc3", "acc5"))
    assert sims["acc2"] == pytest.approx(mmsa_binned(truth, prediction, [-1.01, 0.0, 1.01]))
    assert sims["acc3"] == pytest.approx(mmsa_binned(truth, prediction, [-1.01, -0.1, 0.1, 1.01]))
    assert sims["acc5"] == pytest.approx(mmsa_binned(truth, prediction, [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01]))


def test_stored_floats_do_not_cross_a_bound():
    truth = np.array([0.1, -0.1, 0.7, -0.7], np.float32)
    assert msa_metrics(truth, np.array([0.1, -0.1, 0.7, -0.7]), "sims", ("acc3", "acc5")) == {"acc3": 1.0, "acc5": 1.0}


def test_what_is_undefined_is_none():
    assert set(msa_metrics(np.array([]), np.array([]), "mosi", MSA).values()) == {None}
    assert msa_metrics(np.ones(3), np.ones(3), "mosi", ("ccc",)) == {"ccc": None}
    empty = erc_metrics(np.array([0]), np.array([0]), LABELS, ("micro_f1_without:neutral", "f1_of:joy"))
    assert empty == {"micro_f1_without:neutral": None, "f1_of:joy": None}
    classes = erc_metrics(np.array([0]), np.array([1]), LABELS, ("per_class_recall", "per_class_precision"))
    assert classes["per_class_recall"] == {"neutral": 0.0, "joy": None, "anger": None, "fear": None}
    assert classes["per_class_precision"] == {"neutral": None, "joy": 0.0, "anger": None, "fear": None}


def test_the_description_chooses_metrics_and_the_key():
    assert spec().key_metric == "wf1"
    assert spec(metrics=("uar", "war")).key_metric == "uar"
    assert spec(metrics=("uar", "wf1")).key_metric == "wf1"
    assert spec(metrics=("uar", "f1_of:joy"), key_metric="f1_of:joy").key_metric == "f1_of:joy"
    assert spec(key_metric="uar").key_metric == "uar"
    assert DATASETS["mosei"].key_metric == "mae"
    ranged = spec(task="msa", labels=None, range=(-1.0, 1.0), metrics=("ccc", "mse"))
    assert (ranged.key_metric, ranged.metric_family) == ("ccc", "general")
    assert not higher_is_better("mse")
    assert higher_is_better("f1_of:joy")
    assert show("micro_f1_without:neutral", 0.5) == "50.00 %"
    assert show("ccc", 0.5) == "0.500"


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"metrics": ("uar",), "key_metric": "wf1"}, "`key_metric` is 'wf1', which is none of `metrics`"),
        ({"metrics": ("per_class_recall",)}, "one for each class"),
        ({"metrics": "mosi"}, "none to choose"),
    ],
)
def test_a_wrong_choice_is_no_description(said: dict, match: str):
    with pytest.raises(ValueError, match=match):
        spec(**said)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ccc", "no metric of a data set for erc"),
        ("uarr", "unknown metric 'uarr'.*uar"),
        ("f1_of", "'f1_of' names no class.*f1_of:neutral"),
        ("f1_of:glee", "names no class"),
        ("war:joy", "'war:joy' takes no class"),
    ],
)
def test_a_metric_that_does_not_fit_is_named(name: str, match: str):
    with pytest.raises(MsekitError, match=match):
        metrics_of(spec(metrics=("uar", name)))


def test_an_undefined_value_is_the_worst():
    assert goodness("uar", 0.5) > goodness("uar", 0.4) > goodness("uar", None)
    assert goodness("mse", 0.4) > goodness("mse", 0.5) > goodness("mse", None)
