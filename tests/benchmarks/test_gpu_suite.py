"""The GPU suite in its dry mode: small shapes on a CPU, so that its code paths are exercised without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import cells, speed, suite
from benchmarks.gpu.launches import IN_PARTS
from benchmarks.gpu.machine import Machine

ONE_ROUNDING = 2.0**-24
"""Of a number near one in fp32: where the two orders of a sum happen to agree to the last digit."""
CELL_PARTS = [
    f"cells-{backbone}-{precision}"
    for backbone in ("qwen-1.8b", "chatglm3-6b", "llama2-7b")
    for precision in ("bf16", "int8", "nf4")
]


@pytest.fixture
def machine(tmp_path: Path):
    """A CPU in the suite's dry mode."""
    return Machine("cpu", True, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["cells-qwen-1.8b-int8", "cells-chatglm3-6b-nf4"])
def test_a_dry_part_runs_all_four_data_sets(part: str, machine):
    assert set(CELL_PARTS) <= set(suite.PARTS)
    check(suite.run_part(part, machine))


def test_the_program_names_every_kind_of_part(machine, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(sys, "argv", ["suite.py", "--list"])
    suite.main()
    named = capsys.readouterr().out.split()
    assert named == list(suite.PARTS)
    assert {name.partition("-")[0] for name in named} == {"cells", "speed", "launches", "doctor"}


@pytest.mark.slow
def test_the_speed_parts_run_every_side(machine):

    rows = suite.run_part("speed-qwen-1.8b", machine)["rows"]
    assert [row["side"] for row in rows] == list(speed.SIDES)
    assert all(row["useful tokens/s"] > 0 and row["peak GB"] > 0 for row in rows)
    rows = suite.run_part("speed-qwen-1.8b-evaluation", machine)["rows"]
    assert [row["side"] for row in rows] == list(speed.EVALUATION_SIDES)
    assert all(row["useful tokens/s"] > 0 for row in rows)
    alone = speed.child(speed.SYNCHRONOUS, "tiny", "cpu", 1, 1)  # as on a GPU: in a process of its own
    assert alone["samples"][0] > 0


def test_a_side_that_reads_other_texts_is_found_out(monkeypatch: pytest.MonkeyPatch):

    outcome = speed.kit_outcome

    def without_texts(parts, indices):
        train = parts.collators["train"]
        parts.collators["train"] = replace(train, text_ids=[[5]] * len(train.text_ids))
        return outcome(parts, indices)

    monkeypatch.setattr(speed, "kit_outcome", without_texts)
    with pytest.raises(AssertionError, match="the procedure's"):
        speed.measured("kit, prompt-first layout", "tiny", torch.device("cpu"), 1, 1)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_one_seed_of_five_that_learns_something_else_is_found_out(machine, monkeypatch: pytest.MonkeyPatch, part: str):

    outcomes = speed.joint_outcomes

    def one_wrong(every, shares):
        *others, (loss, gradient) = outcomes(every, shares)
        return [*others, (1.01 * loss, gradient) if part == "loss" else (loss, 1.1 * gradient)]

    monkeypatch.setattr(speed, "joint_outcomes", one_wrong)
    with pytest.raises(AssertionError, match="seed 4"):
        speed.measured(speed.SEEDS, "tiny", torch.device("cpu"), 1, 1)


@pytest.mark.slow
def test_a_compiled_side_starts_from_the_same_loss(machine, monkeypatch: pytest.MonkeyPatch):
    """Traced as on a GPU; no kernels are made, which takes a minute."""

    from msekit.backbones.passes import compiled

    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    side = speed.COMPILED_SIDES[2]
    assert side.endswith(speed.COMPILED)
    rows = speed.run(machine, "qwen-1.8b", 1, 1, sides=(speed.PROCEDURE, side))
    assert abs(rows[0]["first loss"] - rows[1]["first loss"]) <= 2e-4


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_launch_parts_train_a_4_bit_backbone_in_two_processes_as_in_one(machine):
    """Two processes sum a batch in two parts, and one that does so too shows how far that order alone takes it."""
    rows = suite.run_part("launches-nf4", machine)["rows"]
    assert [row["launch"] for row in rows] == ["one process", IN_PARTS, "ddp"]
    assert all(row["code"] == 0 for row in rows)
    _, parts, two = rows
    rate = 5e-4
    assert parts["difference"] <= rate / 100, "twelve steps moved numbers by up to twelve times the rate"
    assert two["difference"] <= 4 * parts["difference"] + ONE_ROUNDING


@pytest.mark.slow
def test_the_program_prints_one_json_document():
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.suite",
        "--part",
        "cells-llama2-7b-bf16",
        "--tiny",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout))
    assert "| dataset | batch |" in done.stderr


def check(result: dict) -> None:
    assert [row["dataset"] for row in result["rows"]] == ["mosei", "sims-v2", "meld", "cherma"]
    assert all(row["fits"] and row["parts"] == 1 and row["samples_per_s"] > 0 for row in result["rows"])
    assert all(row["peak_gb"] is None for row in result["rows"]), "a CPU has no card to measure"


@pytest.mark.slow
def test_what_does_not_fit_is_halved_with_the_batch_kept(monkeypatch: pytest.MonkeyPatch, machine):
    """The card runs out until a part holds at most four samples."""
    whole = cells.random_batch

    def small_card(model: object, config: object, size: int) -> object:
        if size > 4:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return whole(model, config, size)

    monkeypatch.setattr(cells, "random_batch", small_card)
    monkeypatch.setattr(cells, "PAPER_DATASETS", ("meld",))
    (row,) = cells.run(machine, "qwen-1.8b", "bf16")
    assert (row["batch"], row["parts"], row["fits"]) == (16, 4, True)
