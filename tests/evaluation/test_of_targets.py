"""Metrics of several targets: each target's own, the labels' against scikit-learn, and their mean."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.data.targets import Target
from msekit.errors import MsekitError
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import goodness, higher_is_better, metric_named, metrics_of
from msekit.evaluation.of_targets import refuse_unanswered
from msekit.evaluation.units import show

TARGETS = DATASETS["synthetic-targets"]
NOTHING = np.nan


def drawn(size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Truths and predictions, (N, 6)."""
    generator = np.random.default_rng(0)
    columns = [
        np.concatenate(
            [
                generator.integers(0, 4, (size, 1)).astype(float),
                (generator.random((size, 4)) < [0.5, 0.2, 0.7, 0.05]).astype(float),
                generator.integers(-30, 31, (size, 1)) / 10,
            ],
            axis=1,
        )
        for _ in range(2)
    ]
    return columns[0], columns[1]


def test_every_target_has_the_metrics_that_it_would_have_alone():
    truth, prediction = drawn()
    found = metrics_of(TARGETS)(truth, prediction)
    alone = {
        "emotion": metrics_of(DATASETS["synthetic-erc"])(truth[:, 0], prediction[:, 0]),
        "valence": metrics_of(DATASETS["synthetic-msa"])(truth[:, 5], prediction[:, 5]),
    }
    for target, metrics in alone.items():
        assert {name: found[f"{target}:{name}"] for name in metrics} == metrics


def test_the_metrics_of_labels_are_scikit_learns():
    truth, prediction = drawn()
    found, true, said = metrics_of(TARGETS)(truth, prediction), truth[:, 1:5], prediction[:, 1:5]
    assert found["signs:macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert found["signs:micro_f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert found["signs:exact_match"] == pytest.approx(accuracy_score(true, said))
    assert found["signs:label_acc"] == pytest.approx((true == said).mean())
    balanced = [balanced_accuracy_score(true[:, column], said[:, column]) for column in range(4)]
    assert found["signs:uar"] == pytest.approx(np.mean(balanced))
    assert found["signs:per_class_f1"]["tears"] == pytest.approx(f1_score(true[:, 3], said[:, 3]))


def test_samples_that_do_not_answer_a_question_count_in_no_metric_of_it():
    truth, prediction = drawn()
    holes = truth.copy()
    holes[:50, 0], holes[50:100, 2], holes[100:, 5] = NOTHING, NOTHING, NOTHING
    found = metrics_of(TARGETS)(holes, prediction)
    assert found["emotion:acc"] == metrics_of(TARGETS)(truth[50:], prediction[50:])["emotion:acc"]
    assert found["valence:mae"] == metrics_of(TARGETS)(truth[:100], prediction[:100])["valence:mae"]
    known = np.r_[0:50, 100:200]
    assert found["signs:exact_match"] == pytest.approx(accuracy_score(truth[known, 1:5], prediction[known, 1:5]))
    assert found["signs:per_class_f1"]["sighs"] == pytest.approx(f1_score(truth[known, 2], prediction[known, 2]))


def test_the_mean_is_of_shares_of_which_more_is_better():
    truth, prediction = drawn()
    found = metrics_of(TARGETS)(truth, prediction)
    shares = found["emotion:wf1"], found["signs:macro_f1"], 1 - found["valence:mae"] / 6
    assert found["mean"] == pytest.approx(np.mean(shares))
    assert metrics_of(TARGETS)(truth, truth)["mean"] == 1.0
    unknown = truth.copy()
    unknown[:, 0] = NOTHING
    assert metrics_of(TARGETS)(unknown, prediction)["mean"] == pytest.approx(np.mean(shares[1:]))
    assert metrics_of(TARGETS)(truth * NOTHING, prediction)["mean"] is None


def test_names_of_targets_lead_to_the_metric():
    assert metric_named("valence:mae") is metric_named("mae")
    assert not higher_is_better("valence:mae")
    assert goodness("valence:mae", 0.5) == -0.5
    assert metric_named("emotion:f1_of:glad") is metric_named("f1_of:glad")
    assert show("valence:mae", 0.5) == "0.500"
    assert show("signs:macro_f1", 0.5) == "50.00 %"
    with pytest.raises(MsekitError, match=r"unknown metric 'valence:mea'.*mae"):
        metric_named("valence:mea")


def test_intervals_are_of_every_metric():
    truth, prediction = drawn(60)
    truth[:10] = NOTHING
    intervals = bootstrap(truth, prediction, metrics_of(TARGETS), repeats=20)
    found = metrics_of(TARGETS)(truth, prediction)
    assert intervals.keys() == {name for name, value in found.items() if not isinstance(value, dict)}
    low, high = intervals["mean"]
    assert low <= found["mean"] <= high


@pytest.mark.parametrize(
    ("targets", "key", "match"),
    [
        ({"acc": Target(range=(0, 1))}, "mean", "cannot be called 'acc', which is a metric"),
        ({"a": Target(labels=("b",), metrics=("wf1",))}, "mean", "'wf1' is no metric of labels"),
        ({"a": Target(range=(0, 1), metrics=("wf1",))}, "mean", "'wf1' is no metric of a data set for msa"),
        ({"a": Target(range=(0, 1), key_metric="ccc")}, "mean", "target 'a' has no metric 'ccc'"),
        ({"a": Target(range=(0, 1))}, "a:wf1", "target 'a' has no metric 'wf1'"),
    ],
)
def test_metrics_that_a_target_has_not_are_refused(targets: dict[str, Target], key: str, match: str):
    spec = DatasetSpec(name="own", layout="folder", targets=targets, key_metric=key)
    with pytest.raises(MsekitError, match=match):
        metrics_of(spec)


@pytest.mark.parametrize("name", ["macro_f1", "label_acc", "mean"])
def test_metrics_of_labels_and_of_targets_are_none_of_intensities(name: str):
    spec = DatasetSpec(name="own", task="msa", layout="folder", range=(0, 1), metrics=(name,))
    with pytest.raises(MsekitError, match=f"'{name}' is no metric of a data set for msa"):
        metrics_of(spec)


def test_a_description_chooses_metrics_and_the_key_of_every_target():
    chosen = {
        "a": Target(range=(0, 1), metrics=("ccc", "mae")),
        "b": Target(labels=("c", "d"), metrics=("micro_f1",)),
        "e": Target(classes=("f", "g"), metrics=("uar", "f1_of:g"), key_metric="f1_of:g"),
    }
    spec = DatasetSpec(name="own", layout="folder", targets=chosen, key_metric="e:f1_of:g")
    truth = np.array([[0.1, 1, 0, 1], [0.9, 0, 1, 0]])
    names = ["mean", "a:ccc", "a:mae", "b:micro_f1", "e:uar", "e:f1_of:g"]
    assert metrics_of(spec)(truth, truth) == dict.fromkeys(names, 1.0) | {"a:mae": 0.0}


def test_targets_that_cannot_be_trained_or_judged_are_refused():
    train, valid = drawn()
    refuse_unanswered(TARGETS, train, valid)
    refuse_unanswered(DATASETS["synthetic-erc"], train[:, 0], valid[:, 0])
    by_signs = TARGETS.model_copy(update={"key_metric": "signs:uar"})
    for columns, refused in ((slice(1, 4), False), (slice(1, 5), True), (slice(0, 1), False)):
        holes = valid.copy()
        holes[:, columns] = NOTHING
        refuse_unanswered(TARGETS, train, holes)
        if refused:
            with pytest.raises(
                MsekitError, match="no sample of valid answers 'signs', by which `key_metric: signs:uar`"
            ):
                refuse_unanswered(by_signs, train, holes)
        else:
            refuse_unanswered(by_signs, train, holes)
    train[:, 2] = NOTHING
    with pytest.raises(MsekitError, match=r"no training sample answers 'signs\.sighs'"):
        refuse_unanswered(TARGETS, train, valid)
