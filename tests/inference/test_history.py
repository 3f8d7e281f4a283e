"""Context at inference: earlier utterances handed over give what `evaluate` gives with those of the data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

import msekit
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.inference.jsonl import predict_file
from msekit.inference.samples import history_of

pytestmark = pytest.mark.slow  # the runs are trained first, in seconds


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Dialogues of four utterances in each split, one long, some without a speaker; the folder is in `folder`."""
    folder = tmp_path_factory.mktemp("set")
    generator, made = np.random.default_rng(0), []
    (folder / "audio").mkdir()
    for split, size in (("train", 32), ("valid", 8), ("test", 12)):
        for number in range(size):
            long = " really" * (30 if number % 8 == 6 else 0)
            row = {
                "id": f"{split}{number}",
                "text": f"I said number {number}{long}",
                "label": ("calm", "glad")[number % 2],
                "split": split,
                "speaker": ("Ann", "Bob", None)[number % 3],
                "dialogue_id": f"{split}-{number // 4}",
            }
            frames_LD = generator.normal(3 * (number % 2), 1, (4 + number % 3, 6)).astype(np.float32)
            save_file({"audio": frames_LD}, folder / "audio" / f"{row['id']}.safetensors")
            made.append(row | {"folder": folder})
    kept = [{key: value for key, value in row.items() if key != "folder" and value is not None} for row in made]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    described = {"name": "talk", "task": "erc", "layout": "folder", "labels": ["calm", "glad"], "source": "."}
    (folder / "talk.yaml").write_text(yaml.safe_dump(described))
    return made


@pytest.fixture(scope="module", params=["kit", "best"])
def run(request: pytest.FixtureRequest, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp(request.param)
    options = ["--backbone", "tiny-llama", "--dataset", str(rows[0]["folder"] / "talk.yaml"), "--context", "2"]
    options += ["--recipe", request.param, "--epochs", "1", "--set", "evaluation.bootstrap=0"]
    done = CliRunner().invoke(app, ["train", *options, "--output", str(output)])
    assert done.exit_code == 0, (done.exception, done.output)
    return output / "seed-1111"


def before(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[tuple[str | None, str]]:
    """All that was said before a row in its dialogue."""
    same = [other for other in rows if other["dialogue_id"] == row["dialogue_id"]]
    return [(other["speaker"], other["text"]) for other in same[: same.index(row)]]


def test_history_gives_what_evaluate_gives(rows: list[dict[str, Any]], run: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (run / "predictions-test.jsonl").read_text().splitlines()]
    expected = {line["id"]: line["scores"] for line in lines}
    plug_in, test = msekit.load_run(run), [row for row in rows if row["split"] == "test"]
    audio = {row["id"]: row["folder"] / "audio" / f"{row['id']}.safetensors" for row in test}
    histories = [before(rows, row) for row in test]
    speakers = [row["speaker"] for row in test]
    together = plug_in.predict(
        [row["text"] for row in test],
        [audio[row["id"]] for row in test],
        history=histories,
        speaker=speakers,
        ids=[row["id"] for row in test],
    )
    for row, prediction, said in zip(test, together, histories, strict=True):
        assert prediction.scores == pytest.approx(expected[row["id"]], abs=1e-6)
        alone = plug_in.predict(row["text"], audio[row["id"]], history=said, speaker=row["speaker"])
        assert alone.scores == pytest.approx(expected[row["id"]], abs=1e-6)
        assert any("older ones were left out" in note for note in alone.notes) == (len(said) > 2)
    without = plug_in.predict(test[3]["text"], audio[test[3]["id"]])
    assert without.scores != pytest.approx(expected[test[3]["id"]], abs=1e-6)

    lines_file = tmp_path / "lines.jsonl"
    with lines_file.open("w") as file:
        for row, said in zip(test, histories, strict=True):
            pairs = [{"speaker": name, "text": text} for name, text in said]
            line = {"id": row["id"], "text": row["text"], "speaker": row["speaker"], "history": pairs}
            file.write(json.dumps(line | {"audio": str(audio[row["id"]])}) + "\n")
    written: dict[str, dict[str, float]] = {}
    outcome = predict_file(
        plug_in,
        lines_file,
        lambda prediction: written.update({prediction.id: prediction.scores}),
        complain=lambda number, what: None,
    )
    assert not outcome.failed
    assert not outcome.ignored_keys
    for name, scores in expected.items():
        assert written[name] == pytest.approx(scores, abs=1e-6)


def test_the_command_line_reads_history(rows: list[dict[str, Any]], run: Path) -> None:
    lines = [json.loads(line) for line in (run / "predictions-test.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if row["id"] == "test1")
    said = [part for name, text in before(rows, row) for part in ("--history", f"{name}: {text}" if name else text)]
    options = ["--text", row["text"], "--speaker", row["speaker"], *said, "--format", "json"]
    audio = row["folder"] / "audio" / "test1.safetensors"
    done = CliRunner().invoke(app, ["predict", str(run), *options, "--audio", str(audio)])
    assert done.exit_code == 0, done.output
    (expected,) = (line["scores"] for line in lines if line["id"] == "test1")
    assert json.loads(done.stdout)["scores"] == pytest.approx(expected, abs=1e-6)


def test_a_plug_in_without_context_says_that_it_leaves_history_out(erc_run: Path) -> None:
    plug_in = msekit.load_run(erc_run)
    plain, told = plug_in.predict("Well."), plug_in.predict("Well.", history=[("Ann", "Hi.")], speaker="Bob")
    assert told.scores == plain.scores
    assert told.notes == ("this plug-in reads no history: it was left out",)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("Ann: Hi.", "is a str, not a list"),
        ({"speaker": "Ann", "text": "Hi."}, "is a dict, not a list"),
        (7, "is a int, not a list"),
        ([("Ann", "Hi.", 3)], "utterance 0 of 'history' is no pair"),
        ([("Ann", 3)], "'history' is a int, not a text"),
        ([{"text": "Hi.", "who": "Ann"}], "is no pair"),
        ([["Ann", "Hi\ud800"]], "not valid text"),
        ([("Ann", "x" * 100_001)], "has 100001 characters"),
        ([("Ann", "Hi.")] * 1001, "has 1001 utterances"),
    ],
)
def test_what_is_no_history_is_refused(value: Any, complaint: str) -> None:
    with pytest.raises(MsekitError, match=complaint):
        history_of(value)
    assert history_of([("Ann", "Hi."), "Yes.", ["", "So."]]) == (("Ann", "Hi."), (None, "Yes."), (None, "So."))
