"""`msekit reproduce`: what it plans, what it reads, and a whole table on the tiny backbone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError, StoppedError, UnfinishedRunError
from msekit.experiments.paper_runs import SEEDS, cost, experiments
from msekit.experiments.paper_table import RIVALS, differences, lines_of, markdown, reproduced
from msekit.settings.resolve import dump, resolve


def planned(table: str, folder: Path, backbone: str, dataset: str, seeds=(1111, 2222), **given):
    found = experiments(table, [backbone], [dataset])
    for each in found:
        adapter = {"name": each.adapter, "ablate": each.ablate}
        settings = given | {"backbone": backbone, "dataset": dataset, "adapter": adapter}
        each.runs = [
            resolve(settings | {"seed": seed, "output": folder / each.key / f"seed-{seed}"}, task="erc")
            for seed in seeds
        ]
    return found


def finish(each, values: list[float], shuffled: float = 0.3):
    """Reports as `train` leaves them, with these accuracies."""
    for run, value in zip(each.runs, values, strict=False):
        run.output.mkdir(parents=True)
        report = {
            "dataset": Path(run.dataset).stem,
            "backbone": run.backbone,
            "adapter": run.adapter.name,
            "ablate": run.adapter.ablate,
            "recipe": run.recipe,
            "estimate": "greedy",
            "split": "test",
            "seed": run.seed,
            "metrics": {"acc": value, "wf1": value - 0.01},
            "integrity": {"metrics": {"acc": shuffled, "wf1": shuffled}},
            "trainable_parameters": 100,
            "train_samples_per_s": 50.0,
        }
        (run.output / "report.json").write_text(json.dumps(report))
        (run.output / "config.yaml").write_text(dump(run))


@pytest.mark.parametrize(("table", "rows"), [("table2", 6), ("table3", 6), ("table4", 14), ("table5", 6)])
def test_the_papers_own_plan(table, rows):
    found = experiments(table, [], [])
    assert len(found) == rows
    assert len({(each.key, each.backbone, each.dataset) for each in found}) == rows


def test_recipe_best_makes_its_own_rows_of_tables_2_and_3(tmp_path: Path):
    arguments = ["--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "best", "--seeds", "1111"]
    arguments += ["--limit-train", "16", "--epochs", "1", "--output", str(tmp_path), "--format", "json"]
    fast = ["--set", "evaluation.bootstrap=0", "--set", "optim.opinion_samples=32"]
    done = CliRunner().invoke(app, ["reproduce", "table3", *arguments, *fast])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (row,) = document["rows"]
    assert row["row"] == "MSE-STATES-tiny-llama"
    assert row["seeds"] == [1111]
    assert row["metrics"]["acc"]["paper"] is None
    assert "adapter mse-states: not the paper's plug-in" in document["differs"]
    with pytest.raises(MsekitError, match=r"loss\.alone"):
        CliRunner().invoke(app, ["reproduce", "table4", *arguments], catch_exceptions=False)


def test_every_row_is_a_row_of_the_paper():
    from msekit.experiments.paper_runs import TABLES

    for table, original in TABLES.items():
        assert {each.row for each in experiments(table, [], [])} <= {row.model for row in original.rows}


def test_a_set_of_the_other_task_is_refused():
    with pytest.raises(MsekitError, match="table3"):
        experiments("table2", ["tiny-llama"], ["synthetic-erc"])


def test_mistakes_are_told_before_anything_runs():
    runner = CliRunner()
    for arguments, said in (
        (["reproduce", "table2", "--source", "."], "one data set"),
        (["evaluate", "run", "--calibrate", "--shuffle"], "--shuffle does not go with --calibrate"),
        (["evaluate", "run", "--robustness", "--quantization", "nf4"], "--quantization does not go with --robustness"),
    ):
        done = runner.invoke(app, arguments)
        assert isinstance(done.exception, MsekitError)
        assert said in str(done.exception)


def test_ours_stands_beside_the_papers_own_cell(tmp_path):
    found = planned("table4", tmp_path, "chatglm3-6b", "meld")
    for each in found:
        finish(each, [0.60, 0.62] if each.key == "no-msf" else [0.65, 0.67])
    document = reproduced("table4", found)
    row = next(row for row in document["rows"] if row["key"] == "no-msf")
    acc = row["metrics"]["acc"]
    assert acc["mean"] == pytest.approx(0.61)
    assert acc["paper"] == pytest.approx(0.6272)
    assert acc["difference"] == pytest.approx(-0.0172)
    assert acc["change"] == pytest.approx(-0.05)
    assert acc["shuffled"] == pytest.approx(0.3)
    text = markdown(document)
    assert "| w/o MSF | 100 | 2 | 61.00 ± 1.41 % | 30.00 % | -5.00 % | 62.72 % | -1.72 % |" in text
    assert "2 seeds of the paper's 5" in text
    assert "66.24 % (+0.01 %)" in text, "the paper's own table stands below"


def test_another_backbone_is_not_measured_against_chatglm(tmp_path):
    found = planned("table4", tmp_path, "tiny-llama", "meld")
    for each in found:
        finish(each, [0.5, 0.5])
    document = reproduced("table4", found)
    assert all(cell["paper"] is None for row in document["rows"] for cell in row["metrics"].values())
    ((_, headings, _),) = lines_of(document)
    assert "acc against full" in headings
    assert "acc paper" not in headings


def test_rows_without_a_finished_run_stay_empty(tmp_path):
    found = planned("table5", tmp_path, "chatglm3-6b", "meld")
    finish(found[0], [0.6])
    document = reproduced("table5", found)
    assert [row["seeds"] for row in document["rows"]] == [[1111], [], []]
    assert document["rows"][0]["metrics"]["acc"]["change"] is None
    ((_, _, body),) = lines_of(document)
    assert body[1][2:] == ["0", "", "", "", "", *[""] * (len(body[1]) - 7)]


def test_runs_of_one_row_that_differ_in_settings_are_refused(tmp_path):
    found = planned("table4", tmp_path, "smollm2-135m", "synthetic-erc")
    finish(found[0], [0.4, 0.5])
    path = found[0].runs[1].output / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"limit_train": 320}))
    with pytest.raises(MsekitError, match="different settings"):
        reproduced("table4", found)


@pytest.mark.parametrize(("error", "tried"), [(StoppedError, 1), (UnfinishedRunError, 3)])
def test_a_signal_stops_the_table_and_a_broken_run_does_not(tmp_path, monkeypatch, error, tried):
    begun = []

    def broken(config, **_):
        begun.append(config.seed)
        raise error("ended")

    monkeypatch.setattr("msekit.training.loop.train", broken)
    arguments = ["reproduce", "table5", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--seeds", "7"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path)])
    assert isinstance(done.exception, error)
    assert len(begun) == tried
    assert ("those on MOSEI" in done.output) == (error is UnfinishedRunError)


def test_what_differs_from_the_paper_is_named(tmp_path):
    found = planned("table5", tmp_path, "llama2-7b", "meld", seeds=SEEDS, optim={"epochs": 3})
    for each in found:
        finish(each, [0.6] * 5)
    own = [line for line in differences(found) if line not in RIVALS.values()]
    assert own == ["optim.epochs 3 (recipe paper: 30)"]
    other = planned("table5", tmp_path / "kit", "tiny-llama", "synthetic-erc")
    lines = differences(other)
    assert "recipe kit" in lines
    assert any("optim.eps 1e-08 (recipe paper: 0.0001)" in line for line in lines)
    assert any("tiny-llama" in line for line in lines)
    assert lines[-1] == "0 seeds of the paper's 5"


def test_the_cost_falls_as_runs_finish(tmp_path):
    found = planned("table5", tmp_path, "tiny-llama", "synthetic-erc", optim={"epochs": 4})
    before = cost(found, lambda run: 900)
    assert all(line["rough"] and line["hours"] > 0 for line in before), "by how fast this machine multiplies"
    finish(found[0], [0.5])
    lines = cost(found, lambda run: 900)
    assert not any(line["rough"] for line in lines), "by the run that has ended"
    assert [line["samples"] for line in lines] == [3600, 7200, 7200]
    assert lines[1]["hours"] == pytest.approx(7200 / 50 / 3600)


@pytest.mark.slow
def test_a_whole_table_runs_and_is_not_run_again(tmp_path):
    arguments = ["reproduce", "table5", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--seeds", "7"]
    arguments += ["--limit-train", "16", "--epochs", "1", "--output", str(tmp_path), "--set", "evaluation.bootstrap=0"]
    planned = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert not list(tmp_path.iterdir())
    assert re.search(r"about \d+ s ", planned.output), "a small job in seconds, not as 0.0 hours"
    assert re.search(r"\d+ s left, roughly", planned.output)
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [row["key"] for row in document["rows"]] == ["mag", "chfn", "mse"]
    assert all(row["seeds"] == [7] and row["metrics"]["acc"]["mean"] > 0 for row in document["rows"])
    reports = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("report.json")}
    again = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert json.loads(again.stdout) == document
    assert reports == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("report.json")}
    other = CliRunner().invoke(app, [*arguments, "--set", "optim.lr=1e-5"])
    assert isinstance(other.exception, MsekitError)
    assert "other settings" in str(other.exception)


def test_what_makes_seeds_less_comparable_is_told_beside_the_table(tmp_path):
    found = planned("table4", tmp_path, "chatglm3-6b", "meld", seeds=(7, 8))
    finish(found[0], [0.4, 0.5])
    path = found[0].runs[1].output
    other = found[0].runs[1].optim.model_copy(update={"epochs": 15})
    (path / "config.yaml").write_text(dump(found[0].runs[1].model_copy(update={"optim": other})))
    report = json.loads((path / "report.json").read_text()) | {"collapsed_to": "neutral"}
    (path / "report.json").write_text(json.dumps(report))
    document = reproduced("table4", found)
    (collapsed,) = (line for line in document["warnings"] if "neutral" in line)
    assert collapsed == "w/o A on meld, chatglm3-6b: seed 8 answers 'neutral' to every sample"
    assert any("different optim.epochs" in line for line in document["warnings"])
    assert collapsed in markdown(document)
    assert any(line.startswith("optim.epochs 15 (recipe paper: ") for line in document["differs"])
    assert "seeds 7, 8: not the paper's" in document["differs"]


def test_rivals_with_the_adapters_settings_are_named_as_such(tmp_path):
    found = planned("table5", tmp_path, "chatglm3-6b", "meld", seeds=SEEDS)
    for each in found:
        finish(each, [0.6] * 5)
    assert differences(found) == list(RIVALS.values())


def test_a_backbone_by_its_hub_name_is_the_papers(tmp_path):
    assert {each.backbone for each in experiments("table4", ["THUDM/chatglm3-6b-base"], ["meld"])} == {"chatglm3-6b"}


def test_data_sets_that_would_share_their_run_folders_are_refused(tmp_path):
    files = []
    for folder in ("a", "b"):
        files.append(tmp_path / folder / "own.yaml")
        files[-1].parent.mkdir()
        files[-1].write_text(f"name: {folder}\ntask: erc\nlayout: erc-pickle\nlabels: [a, b]\nlanguage: en\n")
    datasets = [option for file in files for option in ("--dataset", str(file))]
    done = CliRunner().invoke(app, ["reproduce", "table3", "--backbone", "tiny-llama", *datasets, "--dry-run"])
    assert isinstance(done.exception, MsekitError)
    assert "share their folders" in str(done.exception)
    assert len(experiments("table3", ["tiny-llama"], ["synthetic-erc", "synthetic-erc"])) == 1


@pytest.mark.parametrize("key", ["adapter.name=linear", "adapter.ablate=no-msf"])
def test_what_makes_the_rows_cannot_be_set(key):
    done = CliRunner().invoke(app, ["reproduce", "table4", "--dataset", "synthetic-erc", "--set", key, "--dry-run"])
    assert isinstance(done.exception, MsekitError)
    assert "makes the rows" in str(done.exception)
