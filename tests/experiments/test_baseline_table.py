"""All baselines in one table: rows with a dash and its reason, what is reused, and the paper's rows beside ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msekit.baselines.catalogue import BASELINES
from msekit.baselines.texts import TextFrom
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.experiments.baseline_table import Request, document_of, draw, lines_of, markdown, run_all
from msekit.experiments.paper_rivals import names_of
from msekit.experiments.paper_runs import TABLES
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)


def request(names=("lmf", "mmgcn", "misa", "llm-linear"), text: TextFrom | None = None, seeds=(1, 2)) -> Request:
    return Request(names, DATASETS["synthetic-erc"], text or TextFrom(), seeds, epochs=1, limit_train=16)


def test_every_row_has_its_numbers_or_a_dash_with_the_reason(tmp_path: Path):
    asked = request()
    document = document_of(asked, run_all(asked, tmp_path, QUIET))
    rows = {row["row"]: row for row in document["rows"]}
    assert rows["lmf"]["seeds"] == rows["misa"]["seeds"] == [1, 2]
    assert rows["misa"]["metrics"]["wf1"]["std"] is not None
    assert rows["misa"]["metrics"]["wf1"]["shuffled"] is not None
    assert rows["misa"]["reads"] == "words"
    assert rows["misa"]["trainable"] > 10**5
    assert "frozen" in rows["misa"]["apart"]
    assert "dialogue" in rows["mmgcn"]["reason"]
    assert "no --backbone" in rows["llm-linear"]["reason"]
    headings, body = lines_of(document)
    assert body[1] == ["mmgcn", *["—"] * (len(headings) - 1)]
    text = markdown(document)
    assert "- mmgcn —: the set does not say the dialogue" in text
    assert "- misa: text encoder frozen" in text
    draw(document, QUIET)


def test_what_is_finished_is_looked_at_alone(tmp_path: Path):
    run_all(request(("lmf",), seeds=(1,)), tmp_path, QUIET)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("report.json")}
    (row,) = run_all(request(("lmf",)), tmp_path, QUIET, run=False)
    assert row.group is not None
    assert row.group.seeds == [1]
    _, ((name, *_),) = lines_of(document_of(request(("lmf",)), [row]))
    assert name == "lmf (1 of 2 seeds)"
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("report.json")}


def test_each_reads_what_it_can_read(tmp_path: Path):
    text = TextFrom("backbone", "tiny-llama", 1, "mean")
    asked = request(("text-linear", "llm-linear", "lft", "misa"), text, (1,))
    rows = {row["row"]: row for row in document_of(asked, run_all(asked, tmp_path, QUIET))["rows"]}
    assert rows["text-linear"]["reads"] == "words"
    assert rows["llm-linear"]["reads"].startswith("tiny-llama, layer")
    assert rows["lft"]["reads"] == "tiny-llama, layer 1"
    assert rows["misa"]["reads"] == "tiny-llama, layer 1, mean"
    assert (tmp_path / "synthetic-erc-misa-tiny-llama" / "seed-1" / "report.json").is_file()


def test_the_command_runs_all_that_a_set_of_text_can_serve(tmp_path: Path):
    rows = [
        f"{word} number {n},{label},{split}\n"
        for split in ("train", "valid", "test")
        for n in range(4)
        for word, label in (("good", "up"), ("bad", "down"))
    ]
    (tmp_path / "all.csv").write_text("text,label,split\n" + "".join(rows))
    (tmp_path / "own.yaml").write_text("name: own\ntask: erc\nlayout: csv\nsource: all.csv\nlabels: [up, down]\n")
    arguments = ["baseline", "all", "--dataset", str(tmp_path / "own.yaml"), "--epochs", "1"]
    arguments += ["--output", str(tmp_path / "runs"), "--format", "json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["selected_on"] == "validation"
    found = {row["row"]: row for row in document["rows"]}
    assert found.keys() == BASELINES.keys()
    with_numbers = {name for name, row in found.items() if row["metrics"]}
    assert with_numbers == {"text-linear", "ef-lstm", "lf-lstm", "tfn", "lmf"}
    assert all(row["reason"] for name, row in found.items() if name not in with_numbers)


def test_the_papers_table_gets_rows_of_baselines(tmp_path: Path):
    arguments = ["reproduce", "table3", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--seeds", "7"]
    arguments += ["--limit-train", "16", "--epochs", "1", "--output", str(tmp_path), "--set", "evaluation.bootstrap=0"]
    arguments += ["--baselines", "tfn,lft,mmgcn", "--text-from", "backbone"]
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    rows = {row["key"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["mse", "tfn", "lft", "mmgcn"]
    assert "baselines: epochs at most: 1, by --epochs; 30 without it" in json.loads(done.stdout)["footnotes"]
    assert rows["lft"]["row"] == "lft (tiny-llama, layer 1)"
    assert rows["lft"]["metrics"]["wf1"]["mean"] is not None
    assert "dialogue" in rows["mmgcn"]["reason"]
    shown = CliRunner().invoke(app, [*arguments, "--report", "--format", "markdown"])
    assert shown.exit_code == 0, shown.output
    assert "mmgcn —: the set does not say" in shown.stdout
    assert "- lft: defined by its name" in shown.stdout


def test_baselines_of_a_table_read_what_was_said_before_as_its_plugin_does(tmp_path: Path):
    rows = [
        {"text": f"say {n}", "audio": f"{n % 2}", "dialogue_id": f"{split}{n // 2}", "split": split, "label": n % 2}
        for split, count in (("train", 16), ("valid", 4), ("test", 4))
        for n in range(count)
    ]
    for place in (0, 1):
        np.save(tmp_path / f"{place}.npy", np.full((3, 4), place, dtype=np.float32))
    lines = [f"{r['text']},{r['audio']}.npy,{r['label']},{r['split']},{r['dialogue_id']}\n" for r in rows]
    (tmp_path / "all.csv").write_text("text,audio,label,split,dialogue_id\n" + "".join(lines))
    (tmp_path / "own.yaml").write_text("name: own\ntask: erc\nlayout: csv\nsource: all.csv\nlabels: ['0', '1']\n")
    arguments = ["reproduce", "table3", "--backbone", "tiny-llama", "--dataset", str(tmp_path / "own.yaml")]
    arguments += ["--seeds", "7", "--epochs", "1", "--set", "evaluation.bootstrap=0", "--set", "data.context=1"]
    arguments += ["--set", "data.text_limit=20", "--baselines", "text-linear,llm-linear,lf-lstm", "--format", "json"]
    for text_from, of_network, alone in (
        ("backbone", "tiny-llama, layer 1, 1 before", False),
        ("words", "words", True),
    ):
        done = CliRunner().invoke(app, [*arguments, "--text-from", text_from, "--output", str(tmp_path / text_from)])
        assert done.exit_code == 0, done.output
        document = json.loads(done.stdout)
        reads = {row["key"]: row.get("reads") for row in document["rows"]}
        assert reads["lf-lstm"] == of_network
        assert reads["llm-linear"].endswith("1 before")
        assert any("each utterance alone" in note for note in document["footnotes"]) == alone
        (report,) = (tmp_path / text_from).glob("own-llm-linear*/seed-7/report.json")
        assert json.loads(report.read_text())["text_limit"] == 20


def test_mistakes_are_told():
    assert names_of("all", "table2") == tuple(BASELINES)
    with pytest.raises(MsekitError, match="no rows of baselines"):
        names_of("all", "table4")
    with pytest.raises(MsekitError, match="unknown baseline 'mulT'"):
        names_of("mulT", "table3")


def test_every_name_that_the_paper_prints_is_one_of_its_rows():
    printed = {row.model for table in (TABLES["table2"], TABLES["table3"]) for row in table.rows}
    named = {entry.row for entry in BASELINES.values() if entry.row}
    assert named <= printed
    assert named >= {"TFN", "LMF", "MulT", "MISA", "Self-MM", "MMIM", "AV-MC", "EFT", "LFT", "PMR", "LFMIM"}
    assert named >= {"MMGCN", "MM-DFN", "EmoCaps", "GA2MIF"}
