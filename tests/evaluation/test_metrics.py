"""Metrics against hand-computed cases and against scikit-learn and scipy."""

from __future__ import annotations

import time
import warnings
from functools import partial

import numpy as np
import pytest

from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.errors import MsekitError
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import (
    METRICS,
    Intensities,
    Metric,
    collapsed_to,
    erc_metrics,
    higher_is_better,
    metrics_of,
    msa_metrics,
)
from msekit.evaluation.reliability import answers
from msekit.evaluation.units import fraction, show

LABELS = ("joy", "anger", "fear")


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_mosei_family_by_hand():
    truth = np.array([-2.0, -0.4, 0.0, 1.0, 2.6])
    prediction = np.array([-1.0, 0.2, -0.2, 0.5, 3.4])
    metrics = msa_metrics(truth, prediction, "mosi")
    # non-negative against negative: truth N N P P P, prediction N P N P P
    assert metrics["acc2"] == pytest.approx(3 / 5)
    # negative: 2·1/(2+2); non-negative: 2·2/(3+3); weighted by 2 and 3 true samples
    assert metrics["f1"] == pytest.approx((2 * 0.5 + 3 * 2 / 3) / 5)
    # without the third sample: truth N N P P, prediction N P P P
    assert metrics["acc2_nonzero"] == pytest.approx(3 / 4)
    assert metrics["f1_nonzero"] == pytest.approx((2 * 2 / 3 + 2 * 4 / 5) / 4)
    # rounded: truth -2 0 0 1 3, prediction -1 0 0 0 (0.5 to even) 3 (clipped)
    assert metrics["acc7"] == pytest.approx(3 / 5)
    assert metrics["mae"] == pytest.approx((1.0 + 0.6 + 0.2 + 0.5 + 0.8) / 5)
    assert "acc2_weak" not in metrics


def test_zero_is_non_negative_but_not_positive():
    metrics = msa_metrics(np.array([0.0, 1.0, -1.0]), np.array([-0.0, 0.0, 0.0]), "mosi")
    assert metrics["acc2"] == pytest.approx(2 / 3)  # every prediction counts as non-negative
    assert metrics["acc2_nonzero"] == pytest.approx(1 / 2)  # a prediction of 0 is not positive


def test_sims_family_by_hand():
    truth = np.array([-1.0, -0.4, 0.0, 0.4, 0.6, 1.4])
    prediction = np.array([-0.2, 0.2, 0.0, -0.2, 0.2, 2.0])
    metrics = msa_metrics(truth, prediction, "sims")
    # positive is > 0: truth n n n p p p, prediction n p n n p p
    assert metrics["acc2"] == pytest.approx(4 / 6)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["acc2_weak"] == pytest.approx(1 / 3)  # of -0.4, 0.0, 0.4 only 0.0 is right
    assert metrics["mae"] == pytest.approx((0.8 + 0.6 + 0.0 + 0.6 + 0.4 + 0.0) / 6)  # 1.4 and 2.0 are clipped to 1
    assert set(metrics) == {"acc2", "f1", "acc2_weak", "mae", "corr"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weak_range_includes_its_bounds_in_every_float_type(dtype):
    truth = np.array([-0.4, 0.4, -0.5, 0.5], dtype)
    prediction = np.array([-1.0, 1.0, 1.0, -1.0], dtype)
    assert msa_metrics(truth, prediction, "sims")["acc2_weak"] == 1.0


def test_empty_weak_subset_and_all_zero_truths_are_undefined():
    assert msa_metrics(np.array([0.8, -0.8]), np.array([0.4, 0.2]), "sims")["acc2_weak"] is None
    metrics = msa_metrics(np.zeros(3), np.array([0.1, 0.2, -0.3]), "mosi")
    assert metrics["acc2_nonzero"] is None
    assert metrics["f1_nonzero"] is None
    assert metrics["acc2"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.7, 2.9])
def test_correlation_of_a_constant_is_undefined(value):
    varied, constant = np.linspace(-2, 2, 11), np.full(11, value)
    assert msa_metrics(varied, constant, "mosi")["corr"] is None
    assert msa_metrics(constant, varied, "mosi")["corr"] is None
    assert msa_metrics(varied, constant.astype(np.float32), "mosi")["corr"] is None


def test_one_sample_and_none():
    one = msa_metrics(np.array([1.0]), np.array([0.5]), "mosi")
    assert one == {
        "acc2": 1.0,
        "f1": 1.0,
        "acc2_nonzero": 1.0,
        "f1_nonzero": 1.0,
        "acc7": 0.0,
        "mae": 0.5,
        "corr": None,
    }
    empty = msa_metrics(np.array([]), np.array([]), "sims")
    assert set(empty.values()) == {None}
    assert erc_metrics(np.array([1]), np.array([1]), LABELS)["per_class_f1"] == {
        "joy": None,
        "anger": 1.0,
        "fear": None,
    }
    assert erc_metrics(np.array([], int), np.array([], int), LABELS)["wf1"] is None


def test_other_ranges_have_no_acc7():
    metrics = msa_metrics(np.array([0.0, 4.0]), np.array([-1.0, 5.0]), "general")
    assert set(metrics) == {"acc2", "f1", "mae", "corr"}
    assert metrics["acc2"] == 0.5


def test_erc_by_hand():
    truth, prediction = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    metrics = erc_metrics(truth, prediction, LABELS)
    assert metrics["acc"] == 3 / 4
    assert metrics["per_class_f1"] == {"joy": pytest.approx(4 / 5), "anger": pytest.approx(2 / 3), "fear": None}
    assert metrics["wf1"] == pytest.approx((3 * 4 / 5 + 2 / 3) / 4)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # fear occurs nowhere


def test_a_class_that_is_only_predicted_counts_zero_in_the_macro_mean():
    metrics = erc_metrics(np.array([0, 0]), np.array([0, 2]), LABELS)
    assert metrics["per_class_f1"]["fear"] == 0.0
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert metrics["wf1"] == pytest.approx(2 / 3)


def test_always_neutral_on_meld_is_the_figure_users_met():
    truth = np.array([0] * 1256 + [1] * (2610 - 1256))
    metrics = erc_metrics(truth, np.zeros(2610, int), ["neutral", "other"])
    assert round(100 * metrics["acc"], 2) == 48.12
    assert collapsed_to(np.zeros(2610, int).tolist()) == 0


@pytest.mark.parametrize("classes", [2, 7])
def test_erc_agrees_with_scikit_learn(classes):
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    labels = [f"class {number}" for number in range(classes)]
    rng = np.random.default_rng(3)
    for size in (1, 5, 200):
        truth, prediction = rng.integers(0, classes, size), rng.integers(0, classes, size)
        metrics = erc_metrics(truth, prediction, labels)
        assert metrics["acc"] == pytest.approx(accuracy_score(truth, prediction))
        assert metrics["wf1"] == pytest.approx(f1_score(truth, prediction, average="weighted", zero_division=0))
        assert metrics["macro_f1"] == pytest.approx(f1_score(truth, prediction, average="macro", zero_division=0))
        in_truth = np.unique(truth)
        recall = recall_score(truth, prediction, labels=in_truth, average="macro", zero_division=0)
        assert metrics["uar"] == pytest.approx(recall)
        per_class = f1_score(truth, prediction, labels=range(classes), average=None, zero_division=0)
        assert [value or 0.0 for value in metrics["per_class_f1"].values()] == pytest.approx(list(per_class))


def test_msa_agrees_with_scikit_learn_and_scipy():
    from scipy.stats import pearsonr
    from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

    rng = np.random.default_rng(4)
    truth = rng.integers(-30, 31, 400) / 10
    prediction = (truth + rng.normal(0, 1.5, 400)).round(1)
    metrics = msa_metrics(truth.astype(np.float32), prediction.astype(np.float32), "mosi")
    clear = truth != 0
    assert metrics["acc2"] == pytest.approx(accuracy_score(truth >= 0, prediction >= 0))
    assert metrics["f1"] == pytest.approx(f1_score(truth >= 0, prediction >= 0, average="weighted"))
    assert metrics["f1_nonzero"] == pytest.approx(f1_score(truth[clear] > 0, prediction[clear] > 0, average="weighted"))
    assert metrics["mae"] == pytest.approx(mean_absolute_error(truth, prediction))
    assert metrics["corr"] == pytest.approx(pearsonr(truth, prediction)[0])


def test_metrics_of_a_data_set():
    assert metrics_of(DATASETS["sims-v2"])(np.array([0.2]), np.array([0.2]))["acc2_weak"] == 1.0
    assert metrics_of(DATASETS["meld"])(np.array([6]), np.array([6]))["per_class_f1"]["anger"] == 1.0


def own_set(**described: object) -> DatasetSpec:
    return DatasetSpec(**{"name": "mine", "task": "msa", "layout": "csv", **described})


def test_a_set_of_ones_own_gets_no_other_sets_definitions_by_its_range():
    mine = own_set(range=(-1.0, 1.0))
    truth, prediction = np.array([0.0, 0.5, -0.5]), np.array([0.0, 0.5, -0.5])
    assert metrics_of(mine)(truth, prediction).keys() == {"acc2", "f1", "mae", "corr"}
    far = np.array([0.0, 2.0, -0.5])
    assert metrics_of(mine)(far, prediction)["mae"] == pytest.approx(0.5), "nothing is clipped"
    nearly = np.array([-0.1, 0.5, -0.5])  # 0 is not negative: one of three signs is wrong
    assert metrics_of(mine)(truth, nearly)["acc2"] == pytest.approx(2 / 3)
    _, right = answers(np.eye(3), nearly, truth, mine)
    assert right.tolist() == [False, True, True]
    like_sims = own_set(range=(-1.0, 1.0), metrics="sims")
    assert "acc2_weak" in metrics_of(like_sims)(truth, prediction)
    _, right = answers(np.eye(3), nearly, truth, like_sims)
    assert right.tolist() == [True, True, True]


def test_the_seven_point_scale_adds_metrics_and_changes_none():
    seven, general = own_set(range=(-3.0, 3.0)), own_set(range=(-3.0, 3.0), metrics="general")
    rng = np.random.default_rng(0)
    truth, prediction = rng.uniform(-3, 3, 50), rng.uniform(-3, 3, 50)
    more, fewer = metrics_of(seven)(truth, prediction), metrics_of(general)(truth, prediction)
    assert more.keys() - fewer.keys() == {"acc2_nonzero", "f1_nonzero", "acc7"}
    assert fewer.items() <= more.items()


@pytest.mark.parametrize(
    ("name", "family"), [("sims", "sims"), ("sims-v2", "sims"), ("mosei", "mosi"), ("mosi", "mosi")]
)
def test_a_description_from_before_the_field_keeps_its_sets_family(name, family):
    described = DATASETS[name].model_dump(mode="json", exclude={"metrics", "frames", "source", "files", "hub"})
    assert DatasetSpec(**described).metric_family == family
    assert DatasetSpec(**(described | {"range": (-2.0, 2.0)})).metric_family == "general", "another set of that name"


def test_one_entry_adds_a_metric(monkeypatch):
    def rmse(answers: Intensities) -> float:
        return float(np.sqrt(np.mean((answers.truth - answers.prediction) ** 2)))

    monkeypatch.setitem(METRICS, "rmse", Metric(rmse, ("sims",), higher_is_better=False, percent=False))
    truth, prediction = np.array([0.2, -0.4]), np.array([0.5, -0.8])
    metrics = metrics_of(DATASETS["sims"])(truth, prediction)
    assert show("rmse", metrics["rmse"]) == "0.354"
    assert not higher_is_better("rmse")
    assert bootstrap(truth, prediction, metrics_of(DATASETS["sims"]), repeats=5)["rmse"] is not None
    assert "rmse" not in metrics_of(DATASETS["mosi"])(truth, prediction)


def test_only_intensities_have_families():
    with pytest.raises(ValueError, match="`metrics`"):
        DatasetSpec(name="mine", task="erc", layout="csv", labels=("a", "b"), metrics="sims")


def test_one_rule_for_what_people_read():
    assert show("wf1", 0.48526) == "48.53 %"
    assert show("mae", 0.48526) == "0.485"
    assert show("wf1", 0.62, spread=0.015) == "62.00 ± 1.50 %"
    assert show("acc", 0.62, interval=[0.6, 0.64]) == "62.00 [60.00, 64.00] %"
    assert show("corr", 0.01, interval=[-0.02, 0.04], signed=True) == "+0.010 [-0.020, +0.040]"
    assert show("corr", None) == "undefined"
    assert (fraction("acc7", 52.61), fraction("mae", 0.581)) == (0.5261, 0.581)


def test_bootstrap_holds_the_metric_and_repeats_itself():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    prediction = np.where(rng.random(300) < 0.6, truth, rng.integers(0, 3, 300))
    function = partial(erc_metrics, labels=LABELS)
    intervals = bootstrap(truth, prediction, function, repeats=400)
    assert set(intervals) == {"acc", "wf1", "macro_f1", "uar"}
    acc = function(truth, prediction)["acc"]
    low, high = intervals["acc"]
    assert low < acc < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(acc * (1 - acc) / 300), rel=0.15)
    assert intervals == bootstrap(truth, prediction, function, repeats=400)
    assert intervals != bootstrap(truth, prediction, function, repeats=400, seed=1)


def test_bootstrap_leaves_undefined_replicates_out():
    function = partial(msa_metrics, family="sims")
    intervals = bootstrap(np.array([0.2, 0.9, 0.8]), np.array([0.3, 0.9, 0.1]), function, repeats=50)
    assert intervals["acc2_weak"] == [1.0, 1.0]  # a third of the replicates hold no weak sample
    assert intervals["corr"] is not None
    constant = bootstrap(np.array([0.9, 0.8]), np.array([0.5, 0.5]), function, repeats=50)
    assert constant["corr"] is None
    assert constant["acc2_weak"] is None
    assert set(bootstrap(np.array([]), np.array([]), function).values()) == {None}


@pytest.mark.parametrize("name", ["mosei", "sims-v2", "meld"])
def test_bootstrap_of_five_thousand_samples_takes_seconds(name):
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 2, 5000), rng.integers(0, 2, 5000)
    start = time.process_time()
    bootstrap(truth, prediction, metrics_of(DATASETS[name]))
    assert time.process_time() - start < 4  # about one second on an idle core


def test_collapsed_to():
    assert collapsed_to(["joy", "joy"]) == "joy"
    assert collapsed_to(np.array([0.0, 0.0, 0.0])) == 0.0
    assert collapsed_to(["joy", "fear"]) is None
    assert collapsed_to(["joy"]) is None
    assert collapsed_to([]) is None


def test_higher_is_better():
    assert higher_is_better("wf1")
    assert higher_is_better("corr")
    assert not higher_is_better("mae")
    with pytest.raises(MsekitError, match="wf1"):
        higher_is_better("wf2")


def test_groups_are_of_the_samples():
    with pytest.raises(ValueError, match="3 groups for 2 samples"):
        bootstrap(np.zeros(2), np.ones(2), lambda truth, prediction: {"acc": 0.0}, groups=["a", "b", "c"])


def test_a_metric_that_is_no_number_is_none(monkeypatch):
    monkeypatch.setitem(METRICS, "lost", Metric(lambda answers: float("nan"), on_request="erc"))
    assert erc_metrics(np.array([0]), np.array([0]), ["calm", "glad"], ("lost", "acc")) == {"lost": None, "acc": 1.0}
