"""`--folds all`: a run for every fold and seed, one table, intervals that draw whole speakers; of baselines too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msekit.api.given_data import write_given
from msekit.cli.main import app
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import erc_metrics

LABELS = ("calm", "excited")
SHORT = ["--backbone", "tiny-llama", "--recipe", "kit", "--epochs", "1", "--set", "evaluation.bootstrap=0"]


def moods(folder: Path) -> Path:
    """Six speakers of eight clips; a description with three folds."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        frames = rng.normal(2.0 * (number % 2), 1.0, size=(6, 4)).astype(np.float32)
        rows.append({"id": f"clip{number}", "text": "Here we are.", "label": LABELS[number % 2], "audio": frames})
        rows[-1]["speaker"] = f"speaker {number // 8}"
    path = folder / "moods.yaml"
    path.write_text(
        f"name: moods\ntask: erc\nlayout: folder\nsource: {write_given(rows)}\nlabels: [calm, excited]\n"
        "folds: {by: speaker, k: 3}\nmetrics: [uar, war, per_class_recall]\nkey_metric: uar\n"
    )
    return path


@pytest.mark.slow
def test_one_command_gives_every_fold_and_one_table(tmp_path: Path, own_cache):
    arguments = ["train", "--dataset", moods(tmp_path), *SHORT, "--folds", "all", "--seeds", "1,2"]
    arguments += ["--set", "evaluation.integrity=false", "--output", tmp_path / "runs"]
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for words in ("fold 1", "fold 3", "mean ± std over folds", "pooled, seed 2", "95 % bootstrap over speakers"):
        assert words in done.stdout
    summary = json.loads((tmp_path / "runs" / "folds.json").read_text())
    assert [(entry["fold"], entry["seed"]) for entry in summary["folds"]] == [(f, s) for f in (1, 2, 3) for s in (1, 2)]
    assert summary["grouped_by"] == "speaker"
    lines = [json.loads(line) for line in (tmp_path / "runs" / "predictions-folds.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["seed"] == 1]
    assert len({line["id"] for line in own}) == len(own) == 48
    truth, prediction = (np.array([LABELS.index(line[key]) for line in own]) for key in ("truth", "prediction"))
    names = ("uar", "war", "per_class_recall")
    pooled = summary["pooled"]["1"]
    assert pooled["metrics"] == erc_metrics(truth, prediction, LABELS, names)
    fn = lambda t, p: erc_metrics(t, p, LABELS, names)  # noqa: E731
    assert pooled["confidence"] == bootstrap(truth, prediction, fn, groups=[line["speaker"] for line in own])
    by_fold = [np.mean([e["metrics"]["uar"] for e in summary["folds"] if e["fold"] == f]) for f in (1, 2, 3)]
    assert summary["over_folds"]["uar"]["mean"] == pytest.approx(np.mean(by_fold))
    assert summary["over_folds"]["uar"]["std"] == pytest.approx(np.std(by_fold, ddof=1))
    report = json.loads((tmp_path / "runs" / "fold-2" / "seed-1" / "report.json").read_text())
    assert report["fold"] == 2
    assert set(report["metrics"]) == set(names)
    before = (tmp_path / "runs" / "fold-1" / "seed-1" / "report.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, [*map(str, arguments), "--resume"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "runs" / "fold-1" / "seed-1" / "report.json").stat().st_mtime_ns == before


def test_a_baseline_is_tested_on_the_same_folds(tmp_path: Path, own_cache):
    path, runs = moods(tmp_path), tmp_path / "runs"
    arguments = ["baseline", "ef-lstm", "--dataset", path, "--epochs", "2", "--seeds", "1,2", "--output", runs]
    done = CliRunner().invoke(app, [*map(str, arguments), "--folds", "all", "--format", "json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary == json.loads((runs / "folds.json").read_text())
    lines = [json.loads(line) for line in (runs / "predictions-folds.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["seed"] == 2]
    assert len({line["id"] for line in own}) == len(own) == 48, "each speaker is tested once"
    truth, prediction = (np.array([LABELS.index(line[key]) for line in own]) for key in ("truth", "prediction"))
    names = ("uar", "war", "per_class_recall")
    assert summary["pooled"]["2"]["metrics"] == erc_metrics(truth, prediction, LABELS, names)
    assert summary["grouped_by"] == "speaker"
    for fold in (1, 2, 3):
        tested = {line["speaker"] for line in own if line["fold"] == fold}
        assert len(tested) == 2
        report = json.loads((runs / f"fold-{fold}" / "seed-1" / "report.json").read_text())
        assert report["fold"] == fold
    written = runs / "fold-1" / "seed-1" / "report.json"
    before = written.stat().st_mtime_ns
    again = CliRunner().invoke(app, [*map(str, arguments), "--folds", "1"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert written.stat().st_mtime_ns == before
    arguments[1] = "all"
    refused = CliRunner().invoke(app, [*map(str, arguments), "--folds", "all"])
    assert "--folds takes one baseline" in str(refused.exception or refused.output)


def test_a_row_without_a_label_counts_in_no_fold_and_may_only_be_tested(tmp_path: Path, own_cache):
    path = moods(tmp_path)
    source = Path(next(line for line in path.read_text().splitlines() if line.startswith("source"))[8:])
    first, *others = (source / "samples.jsonl").read_text().splitlines()
    unlabelled = {key: value for key, value in json.loads(first).items() if key != "label"}
    (source / "samples.jsonl").write_text("\n".join([json.dumps(unlabelled), *others]) + "\n")
    arguments = ["baseline", "ef-lstm", "--dataset", path, "--epochs", "1", "--output", tmp_path / "runs"]
    ends = [CliRunner().invoke(app, [*map(str, arguments), "--folds", number]) for number in "123"]
    assert sorted(end.exit_code == 0 for end in ends) == [False, False, True], [end.output for end in ends]
    summary = json.loads((tmp_path / "runs" / "folds.json").read_text())
    assert summary["pooled"]["1111"]["samples"] == 15


def test_whole_speakers_make_wider_intervals():
    """One speaker is always right, the other always wrong: which of them is drawn decides."""
    truth, prediction = np.zeros(40, int), np.repeat([0, 1], 20)
    fn = lambda t, p: erc_metrics(t, p, LABELS)  # noqa: E731
    alone = bootstrap(truth, prediction, fn)["acc"]
    grouped = bootstrap(truth, prediction, fn, groups=["a"] * 20 + ["b"] * 20)["acc"]
    assert grouped == [0.0, 1.0]
    assert 0.3 < alone[0] < alone[1] < 0.7


def test_a_metric_that_does_not_fit_is_refused_before_anything_trains(tmp_path: Path, own_cache):
    path = moods(tmp_path)
    path.write_text(path.read_text().replace("war", "ccc"))
    arguments = ["train", "--dataset", path, *SHORT, "--folds", "1", "--output", tmp_path / "runs"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code != 0
    assert "'ccc' is no metric of a data set for erc" in str(done.exception or done.output)
    assert not (tmp_path / "runs").exists()
