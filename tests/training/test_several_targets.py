"""Several targets from training to use: every one nears its ceiling in one model, and all that reads a run reads it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from starlette.testclient import TestClient
from typer.testing import CliRunner

import msekit
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.data.readers.synthetic import ceiling, synthetic_rows
from msekit.errors import MsekitError
from msekit.runs.description import read_description
from msekit.runs.predictions import read_predictions
from msekit.runs.report import read_report
from msekit.serving.app import create_app
from msekit.serving.request_queue import RequestQueue
from msekit.studies.evaluate import evaluate

TRAIN = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-targets", "--epochs", "2"]
TRAIN += ["--set", "evaluation.bootstrap=20", "--set", "optim.opinion_samples=8000"]


def msekit_says(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=True)
    assert (done.exit_code == 0) == (code == 0), done.output
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three targets."""
    folder = tmp_path_factory.mktemp("runs") / "targets"
    msekit_says(*TRAIN, "--output", folder)
    return folder / "seed-1111"


@pytest.mark.slow
def test_every_target_nears_its_ceiling_in_one_model(run: Path):
    report = read_report(run)
    best, with_one = ceiling("synthetic-targets")["full"], ceiling("synthetic-targets")["no-audio"]
    found = {name: report.metrics[name] for name in best}
    assert found["emotion:acc"] > best["emotion:acc"] - 0.05 > with_one["emotion:acc"]
    assert found["signs:label_acc"] > best["signs:label_acc"] - 0.05 > with_one["signs:label_acc"]
    assert found["valence:mae"] < best["valence:mae"] + 0.2 < with_one["valence:mae"]
    shuffled = report.integrity.metrics
    assert shuffled["emotion:acc"] < 0.4
    assert shuffled["signs:label_acc"] < 0.6
    assert shuffled["valence:mae"] > 1


@pytest.mark.slow
def test_files_say_every_target(run: Path):
    report, spec = read_report(run), read_description(run).dataset
    assert spec.targets == DATASETS["synthetic-targets"].targets
    assert list(report.llm_weight) == ["emotion", *(f"signs.{one}" for one in spec.targets["signs"].labels), "valence"]
    lines = [json.loads(line) for line in (run / "predictions-test.jsonl").read_text().splitlines()]
    assert len(lines) == report.samples == 320
    agreeing = np.mean([line["truth"]["emotion"] == line["prediction"]["emotion"] for line in lines])
    assert agreeing == pytest.approx(report.metrics["emotion:acc"])
    exact = np.mean([set(line["truth"]["signs"]) == set(line["prediction"]["signs"]) for line in lines])
    assert exact == pytest.approx(report.metrics["signs:exact_match"])
    apart = np.mean([abs(line["truth"]["valence"] - line["prediction"]["valence"]) for line in lines])
    assert apart == pytest.approx(report.metrics["valence:mae"])
    emotions = read_predictions(run, spec, "emotion")
    assert np.mean(emotions.truth == emotions.prediction) == pytest.approx(report.metrics["emotion:acc"])
    assert emotions.distribution.shape == (320, 4)
    with pytest.raises(MsekitError, match="takes one target"):
        read_predictions(run, spec)
    counted = report.predicted
    assert sum(counted[f"emotion:{name}"] for name in spec.targets["emotion"].classes) == 320


@pytest.mark.slow
def test_an_evaluation_gives_the_report_again(run: Path):
    again = evaluate(run)
    assert again["metrics"] == read_report(run).metrics


@pytest.mark.slow
def test_another_kind_of_set_is_refused_as_what_it_is(run: Path):
    done = msekit_says("evaluate", run, "--dataset", "synthetic-erc", code=2)
    assert "trained for other targets than this data set has" in str(done.exception)


@pytest.mark.slow
def test_the_plug_in_predicts_what_its_run_did(run: Path, tmp_path: Path):
    plug_in = msekit.load_run(run)
    rows = [row for row, _ in zip(synthetic_rows("synthetic-targets", "test"), range(3), strict=False)]
    lines = [json.loads(line) for line in (run / "predictions-test.jsonl").read_text().splitlines()[:3]]
    for row, line in zip(rows, lines, strict=True):
        prediction = plug_in.predict(row.text, row.audio, row.vision)
        assert prediction.prediction["emotion"] == line["prediction"]["emotion"]
        assert prediction.prediction["signs"] == line["prediction"]["signs"]
        assert prediction.prediction["valence"] == pytest.approx(line["prediction"]["valence"], abs=1e-3)
        assert [target for target, _, _ in prediction.by_target()] == ["emotion", "signs", "valence"]
    for refused in (plug_in.write, plug_in.prompt_embeds):
        with pytest.raises(MsekitError, match="takes one target, and there are 3"):
            refused("Well.")
    shown = msekit_says("predict", run, "--text", "Well.").output
    for title in (r"emotion: \w+ \(argmax\)", r"signs: .*\(argmax\)", r"valence: .*\(mean\)"):
        assert re.search(title, shown), shown


@pytest.mark.slow
def test_the_page_and_its_api_answer_every_target(run: Path):
    host = msekit.PlugInHost("tiny-llama")
    host.add("all", run)
    queue = RequestQueue(host)
    with closing(queue), TestClient(create_app(queue, {}), base_url="http://localhost") as client:
        answered = client.post("/api/predict", json={"text": "So you are leaving tomorrow."}).json()
        assert list(answered["prediction"]) == list(answered["scores"]) == ["emotion", "signs", "valence"]
        page = client.post("/", data={"text": "So you are leaving tomorrow."}).text
    headings = [f'<h2 class="target">{name}</h2>' for name in ("emotion", "signs", "valence")]
    for what in (*headings, "laughter", "any of laughter"):
        assert what in page, what


@pytest.mark.slow
def test_cards_and_pages_are_written_of_every_target(run: Path, tmp_path: Path):
    msekit_says("export", run, tmp_path / "plug-in")
    card = (tmp_path / "plug-in" / "README.md").read_text()
    assert "| emotion:wf1 |" in card
    assert "signs: any of laughter, sighs, smile, tears" in card
    msekit_says("report", run, "--format", "html", "--output", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for picture in ("emotion: confusion matrix", "signs: F1 by label", "valence: true and predicted intensity"):
        assert f'alt="{picture}"' in page
    drawn = [base64.b64decode(svg).decode() for svg in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    for title in ("emotion: confusion", "emotion: reliability", "signs: F1 by class", "valence: intensity"):
        assert sum(title in svg for svg in drawn) == 1, f"two pictures of a kind are told apart: {title}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["evaluate", "RUN", "--calibrate"], "calibration"),
        (["compare", "RUN", "RUN"], "a comparison sample by sample"),
        (["sensitivity", "RUN"], "a test of other wordings"),
        (["average", "RUN", "OTHER"], "averaging"),
        (["baseline", "all", "--dataset", "synthetic-targets"], "a baseline"),
        ([*TRAIN, "--folds", "all"], "cross-validation"),
    ],
)
def test_what_takes_one_target_refuses_several_in_a_line(run: Path, tmp_path: Path, command: list[str], what: str):
    places = {"RUN": str(run), "OTHER": str(tmp_path / "seed-2")}
    if "OTHER" in command:
        shutil.copytree(run, places["OTHER"])
    done = msekit_says(*(places.get(part, part) for part in command), code=2)
    assert isinstance(done.exception, MsekitError)
    assert str(done.exception).startswith(f"{what} takes one target, and there are 3: emotion, signs, valence")


@pytest.mark.slow
def test_the_papers_plug_in_trains_on_several_targets_with_answers_missing(tmp_path: Path):
    """Without an opinion, each row with one target alone; a run that is resumed reads its files again."""
    rows = []
    for split in ("train", "valid", "test"):
        for number in range(24):
            said = [{"mood": ("calm", "glad")[number % 2]}, {"signs": ["smile"] if number % 2 else []}, {"power": 0.1}]
            rows.append({"text": f"Well {split} {number}.", "split": split, "targets": said[number % 3]})
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    targets = "mood: {classes: [calm, glad]}, signs: {labels: [smile, tears]}, power: {range: [0, 1], weight: 0.5}"
    (tmp_path / "own.yaml").write_text(f"name: own\nlayout: folder\ntargets: {{{targets}}}\n")
    command = [
        "train",
        "--backbone",
        "tiny-llama",
        "--dataset",
        tmp_path / "own.yaml",
        "--recipe",
        "kit",
        "--epochs",
        "1",
    ]
    command += ["--set", "evaluation.bootstrap=0", "--output", tmp_path / "run"]
    msekit_says(*command)
    report = read_report(tmp_path / "run" / "seed-1111")
    assert 0 <= report.metrics["mean"] <= 1
    assert report.without_label is None
    assert report.metrics["power:mae"] is not None


@pytest.mark.slow
def test_tensorboard_shows_every_target(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    short = ["--recipe", "kit", "--epochs", "1", "--limit-train", "32", "--set", "evaluation.bootstrap=0"]
    msekit_says(
        *TRAIN[:5], *short, "--seeds", "1,2", "--parallel-seeds", "--track", "tensorboard", "--output", tmp_path
    )
    for folder in (tmp_path / "seed-1", tmp_path / "seed-2"):
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        (epoch,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for name in ("mean", "emotion:wf1", "signs:uar", "signs:per_class_f1/smile", "valence:mae"):
            metric, _, label = name.partition("/")
            told = epoch["valid"][metric][label] if label else epoch["valid"][metric]
            (shown,) = [event.value for event in events.Scalars(f"valid/{name}")]
            assert shown == pytest.approx(told), name
        assert "test/signs:exact_match" in events.Tags()["scalars"]
