"""The plan of the tables' runs: what it costs, that its commands are commands, and that what is finished stays."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.accuracy import table_plan, table_runs
from benchmarks.accuracy.table_plan import KIT, PARTS, SHORT, TASKS, Job, costs, job, jobs, seconds
from benchmarks.accuracy.table_runs import main
from msekit.cli.main import app


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Nothing is finished."""
    monkeypatch.setattr(table_plan, "RESULTS", tmp_path)
    folders = {"data": Path("data"), "output": tmp_path / "runs", "results": tmp_path / "kept"}
    return Namespace(**folders, backbone="smollm2-135m", seeds=[1111, 2222, 3333], only=[])


def test_the_printed_cost_is_the_documented_one(where: Namespace):
    expected = 30 + (3 * 640 / 6 + (3 * 120 + 2 * 120) / 12) / 1.5
    assert seconds("ravdess", SHORT, [*KIT.on(SHORT)]) == pytest.approx(expected)
    where.only = list(PARTS)
    printed = dict(re.findall(r"^\| (\w+) \| (\d+ \| 0 \| \d+) \|$", costs(jobs(where)), re.MULTILINE))
    documented = re.findall(r"^\| (\w+) \| .* \| (\d+) \| (\d+) \|$", table_runs.__doc__ or "", re.MULTILINE)
    assert printed == {part: f"{runs} | 0 | {minutes}" for part, runs, minutes in documented}
    assert set(printed) == set(PARTS)


def test_long_ones_are_only_run_when_asked_for(where: Namespace):
    assert {task.part for task in jobs(where)} == set(PARTS) - {"rivals", "long"}
    where.only = ["ravdess"]
    assert {task.part for task in jobs(where)} == {"rows", "options", "table4", "quick", "baselines"}
    where.only = ["meld6-mag", "rivals"]
    assert {task.part for task in jobs(where)} == {"rivals"}


def test_a_kept_report_has_one_meaning_and_a_folder_one_run(where: Namespace):
    where.only = list(PARTS)
    meaning: dict[Path, tuple] = {}
    for task in jobs(where):
        for folder, file in task.keeps.items():
            assert meaning.setdefault(file, (folder, task.options[file])) == (folder, task.options[file])
    folders = [folder for folder, _ in meaning.values()]
    assert len(set(folders)) == len(folders)


@pytest.mark.slow
def test_every_row_is_a_command_that_runs(where: Namespace):
    """Each row's own options, on the synthetic set of its task."""
    rows = {(row, task) for rows, sets in PARTS.values() for row in rows for task in row.tasks if not row.classical}
    for row, task in sorted(rows, key=str):
        options = [] if row.name == "table4" else row.on(SHORT)
        command = ["train", "--backbone", "tiny-llama", "--dataset", f"synthetic-{task}", "--dry-run", *options]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, f"{row.name}: {done.output}"


def test_table4_is_one_command_a_seed(where: Namespace, test_data: Path):
    """Its folders are those that `reproduce` makes, and the row kit is trained where it looks for the full row."""
    where.data, where.backbone = test_data, "tiny-llama"
    table4 = next(task for task in jobs(where) if task.part == "table4" and task.name.startswith("ravdess"))
    done = CliRunner().invoke(app, [*table4.command[3:], "--dry-run"])
    assert done.exit_code == 0, done.output
    assert done.output.count("0 of 1") == 7
    kit = job("rows", "ravdess", KIT, 1111, where)
    assert kit.keeps.items() <= table4.keeps.items()
    assert kit.options.items() <= table4.options.items()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_what_is_finished_is_kept_and_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    only = ["--backbone", "tiny-llama", "--seeds", "1", "--only", "synthetic-erc-kit", "mosi_utt-nothing"]
    arguments = [*only, "--output", str(tmp_path / "runs"), "--results", str(tmp_path / "kept")]
    assert main([*arguments, "--plan"]) == 0
    assert "| synthetic | 1 | 0 | 4 |" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(arguments) == 0
    (file,) = tmp_path.glob("kept/synthetic-erc-kit-480x3/seed-1.json")
    shown = capsys.readouterr()
    assert "| synthetic-erc | acc | best possible | trainable | seeds | besides or instead |" in shown.out
    assert "| acc 1.000 |" in shown.out
    written = file.stat().st_mtime_ns
    assert main(arguments) == 0
    assert file.stat().st_mtime_ns == written
    assert "| synthetic | 1 | 1 | 0 |" in capsys.readouterr().err
    file.write_text(file.read_text().replace("480", "481", 1))
    with pytest.raises(SystemExit, match="remove it to run again"):
        main(arguments)


def test_what_was_made_in_integers_is_printed_apart_and_mixed_with_nothing(capsys: pytest.CaptureFixture[str]):
    assert main(["--report"]) == 0
    shown, integers = capsys.readouterr().out.split("## With the LLM in w8a8")
    assert "| text-linear |" in shown
    assert "w8a8" not in shown
    assert "| kit | 0.414 ± 0.042 (0.133) |" in integers
    assert "| fp32 | 0.436 ± 0.067 |" in integers
    assert (
        "All on the LLM: `--limit-train 640 --epochs 3 --set optim.batch_size=8 --set model.quantization=w8a8"
        in integers
    )
    folders = {"data": Path("data"), "output": Path("runs"), "results": table_plan.RESULTS / "table_runs"}
    where = Namespace(**folders, backbone="smollm2-135m", seeds=[*table_plan.SEEDS], only=list(PARTS))
    for task in jobs(where):
        for file in file_of_table_runs(task):
            assert json.loads(file.read_text())["options"] == task.options[file]


def file_of_table_runs(task: Job) -> list[Path]:
    """The reports of a job that are kept, but for those that real_runs.py made."""
    return [file for file in task.keeps.values() if file.is_file() and "table_runs" in file.parts]


def test_a_row_that_the_plan_does_not_have_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Whatever options it names, on a synthetic set too, whose ceilings are of the plan's rows."""
    file = tmp_path / "kept" / "synthetic-erc-gone-480x3" / "seed-1.json"
    file.parent.mkdir(parents=True)
    test = {"metrics": {"acc": 0.5}, "trainable_parameters": 7}
    file.write_text(json.dumps({"options": ["--set", "model.gone=yes", "--gone"], "test": test}))
    assert main(["--report", "--results", str(tmp_path / "kept")]) == 0
    shown = capsys.readouterr().out
    assert "All on the LLM: `--set model.gone=yes --gone`" in shown
    assert "| gone | 0.500 |  | 7 | 1 |  |" in shown


def test_the_data_sets_are_as_large_as_the_plan_says(test_data: Path):
    from msekit.data.cache.cache import prepare
    from msekit.data.catalogue import SPLITS, resolve_dataset

    for dataset in TASKS:
        named = dataset if dataset.startswith("synthetic") else str(test_data / dataset / f"{dataset}.yaml")
        info = prepare(resolve_dataset(named)).info
        assert tuple(info.splits[split].samples for split in SPLITS) == table_plan.SIZES[dataset]
