"""`msekit predict` on files: order, bad lines, bounded memory, one document of JSON, exit codes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import msekit
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.inference import jsonl
from msekit.inference.jsonl import predict_file

pytestmark = pytest.mark.slow  # the runs are trained first, in seconds


def predict(*arguments: object):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def write_rows(path: Path, rows, inline: bool) -> Path:
    """Every other modality of a row by path, or all of them as nested lists."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            np.save(path.parent / f"{row.id}.npy", row.vision)
            vision = row.vision.tolist() if inline else f"{row.id}.npy"
            sample = {"id": row.id, "text": row.text, "audio": row.audio.tolist(), "vision": vision}
            file.write(json.dumps(sample) + "\n")
    return path


@pytest.mark.parametrize("inline", [True, False])
def test_a_file_gives_the_runs_own_test_predictions(erc_run: Path, erc_rows, erc_lines, tmp_path: Path, inline: bool):
    source = write_rows(tmp_path / "in.jsonl", erc_rows[:50], inline)
    result = predict(erc_run, "--input", source, "--output", tmp_path / "out.jsonl", "--batch-size", "7")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    for answer, line in zip(lines_of((tmp_path / "out.jsonl").read_text()), erc_lines[:50], strict=True):
        assert set(answer) == {"id", "prediction", "scores"}
        assert (answer["id"], answer["prediction"]) == (line["id"], line["prediction"])
        assert answer["scores"] == pytest.approx(line["scores"], abs=1e-5)


BAD = [
    b"{",
    b"[1]",
    b'{"audio": [[1]]}',
    b'{"text": 3}',
    b'{"text": "\\ud800"}',
    b'{"text": "\xff"}',
    b'{"text": "a", "id": []}',
    b'{"text": "a", "text": "b"}',
    b'{"text": "a", "audio": "../../etc/passwd"}',
    b'{"text": "a", "audio": "missing.npy"}',
    b'{"text": "a", "audio": "a\\u0000b.npy"}',
    b'{"text": "a", "audio": []}',
    b'{"text": "a", "audio": [[NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN]]}',
    b'{"text": "a", "audio": [[1, 2]]}',
    b'{"text": "a", "audio": {"path": "x"}}',
    b"[" * 200_000,
    b'{"text": ' + b"9" * 5000 + b"}",
]


def test_bad_lines_are_reported_by_number_and_the_rest_goes_on(erc_run: Path, tmp_path: Path):
    good = b'{"text": "Well.", "label": "glad", "speaker": 1}'
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, *BAD, b"", b"  ", good]))
    result = predict(erc_run, "--input", tmp_path / "in.jsonl")
    assert result.exit_code == 2
    assert [line["id"] for line in lines_of(result.stdout)] == ["1", str(len(BAD) + 4)]
    for number in range(2, len(BAD) + 2):
        assert f"line {number}: " in result.stderr
    assert "keys that predict does not read: label, speaker" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_json_is_one_document(erc_run: Path, tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"text": "Well."}\n{"text": 3}\n')
    result = predict(erc_run, "--input", tmp_path / "in.jsonl", "--format", "json")
    document = json.loads(result.stdout)
    assert document["predicted"] == len(document["predictions"]) == 1
    assert document["failed"] == [{"line": 2, "error": "'text' is a int, not a text"}]
    assert result.exit_code == 2
    result = predict(erc_run, "--text", "Well.", "--format", "json")
    assert set(json.loads(result.stdout)) == {"id", "prediction", "scores", "estimate", "seconds"}


def test_one_sample_from_the_command_line(erc_run: Path, erc_rows, erc_lines, tmp_path: Path):
    row = erc_rows[0]
    np.savez(tmp_path / "clip.npz", audio=row.audio, vision=row.vision)
    files = ["--audio", tmp_path / "clip.npz", "--vision", tmp_path / "clip.npz"]
    result = predict(erc_run, "--text", row.text, *files, "--format", "json")
    line = erc_lines[0]
    assert json.loads(result.stdout)["scores"] == pytest.approx(line["scores"], abs=1e-5)
    shown = predict(erc_run, "--text", row.text, *files)
    assert f"{line['prediction']} (greedy)" in shown.stdout
    assert " %" in shown.stdout, "probabilities in percent"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "one sample or a file"),
        (["--text", "a", "--input", "b.jsonl"], "one sample or a file"),
        (["--input", "b.jsonl", "--audio", "a.npy"], "belong to --text"),
        (["--input", "missing.jsonl"], "no such file"),
        (["--input", "/dev/zero"], "no such file"),
        (["--input", "in.jsonl", "--output", "in.jsonl"], "overwrite the input"),
        (["--input", "in.jsonl", "--output", "no/such/folder/out.jsonl"], "output cannot be written"),
        (["--text", "a", "--estimate", "mean"], "for intensities"),
        (["--text", "a", "--backbone", "tiny-lama"], "unknown backbone"),
    ],
)
def test_mistakes(erc_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], match: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"text": "Well."}\n')
    result = predict(erc_run, *arguments)
    assert isinstance(result.exception, MsekitError), result.output
    assert match in str(result.exception)
    assert (tmp_path / "in.jsonl").read_text() == '{"text": "Well."}\n'


def test_lines_and_windows_are_bounded(erc_run: Path, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A line that is too long is skipped to its end; small windows change no result and no order."""
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 3000)
    monkeypatch.setattr(jsonl, "_WINDOW_BATCHES", 1)
    plug_in = msekit.load_run(erc_run, tiny)
    good = [json.dumps({"id": str(number), "text": "very " * (number % 5)}) for number in range(23)]
    long = json.dumps({"text": "x" * (3 << 20)})
    (tmp_path / "in.jsonl").write_text("\n".join([*good[:9], long, *good[9:], long]))
    answers, complaints = [], []
    outcome = predict_file(
        plug_in,
        tmp_path / "in.jsonl",
        answers.append,
        complain=lambda number, what: complaints.append((number, what)),
        batch_size=4,
    )
    assert [answer.id for answer in answers] == [str(number) for number in range(23)]
    assert [number for number, _ in outcome.failed] == [10, 25]
    assert complaints == outcome.failed
    assert "longer than" in complaints[0][1]


def test_two_gigabytes_in_a_line_take_no_memory(erc_run: Path, tiny, tmp_path: Path):
    """A sparse file: one line of 2 GB of zeros, then a good one."""
    with (tmp_path / "in.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        file.seek(2 << 30)
        file.write(b'"}\n{"text": "Well."}\n')
    plug_in, answers = msekit.load_run(erc_run, tiny), []
    tracemalloc.start()
    try:
        outcome = predict_file(plug_in, tmp_path / "in.jsonl", answers.append, complain=lambda number, what: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [number for number, _ in outcome.failed] == [1]
    assert [answer.id for answer in answers] == ["2"]
    assert peak < 100 << 20
