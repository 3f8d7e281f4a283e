"""The GPU suite in its dry mode: small shapes on a CPU, so that its code paths are exercised without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import reference_operators
import torch

from benchmarks.gpu import cells, first_look, speed, suite
from benchmarks.gpu.direct import backbone_on
from benchmarks.gpu.launches import IN_PARTS
from benchmarks.gpu.machine import TINY, Machine
from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.settings.config import RunConfig
from msekit.testing.random_checkpoint import SHAPES

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


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_layers_quantised_where_they_are_are_those_of_a_loaded_checkpoint(kind: str, tmp_path: Path):
    raw = SHAPES["llama2-7b"] | TINY["llama2-7b"] | {"torch_dtype": "bfloat16"}
    direct = backbone_on(raw, tmp_path / "direct", torch.device("cpu"), kind)
    plain = backbone_on(raw, tmp_path / "plain", torch.device("cpu"))
    plain.model.save_pretrained(tmp_path / "saved")
    for file in (tmp_path / "direct").glob("tokenizer*"):
        (tmp_path / "saved" / file.name).write_bytes(file.read_bytes())
    loaded = load_backbone(str(tmp_path / "saved"), kind, "bf16", device="cpu")
    assert held(direct) == held(loaded)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(*(backbone.model(ids).logits for backbone in (direct, loaded)))


def held(backbone: Backbone) -> dict[str, tuple[str, torch.dtype]]:
    return {
        name: (type(part).__name__, part.weight.dtype)
        for name, part in backbone.model.named_modules()
        if isinstance(part, torch.nn.Linear)
    }


def test_the_program_names_every_kind_of_part(machine, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(sys, "argv", ["suite.py", "--list"])
    suite.main()
    named = capsys.readouterr().out.split()
    assert named == list(suite.PARTS)
    assert {name.partition("-")[0] for name in named} == {"first", "cells", "speed", "launches", "doctor"}


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
def test_ways_that_are_asked_for_are_sides(machine, monkeypatch: pytest.MonkeyPatch):
    """The kernels' side by their references: without a GPU it has a row that says why there is none."""
    sides = speed.WAYS_SIDES[:4]
    rows = speed.run(machine, "tiny", 1, 1, sides=sides)
    assert [row["side"] for row in rows] == list(sides)
    assert "'triton' through the LLM cannot be used" in rows[-1]["failed"]
    reference_operators.in_their_place(monkeypatch)
    rows = speed.run(machine, "tiny", 1, 1, sides=(speed.PROCEDURE, sides[3]))
    assert rows[1]["useful tokens/s"] > 0


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
def test_the_first_look_answers_every_question(machine):
    rows = suite.run_part("first-look", machine)["rows"]
    assert not [row for row in rows if "failed" in row]
    answers = {row["question"]: row["answer"] for row in rows}
    assert "prefix" in answers["is the backbone made"]["used"]
    assert answers["does it agree with the procedure"]["prompt-first"]["loss"] <= speed.LOSS
    finite = answers["are gradients of padded batches finite"]
    assert set(finite.values()) == {0}
    assert len(finite) == 6
    assert answers["how fast: five seeds"]["samples/s"][0] > 0


def test_a_question_that_fails_leaves_the_others(machine, monkeypatch: pytest.MonkeyPatch):
    def no_answer(self: first_look.Look) -> dict:
        raise RuntimeError("no kernel image")

    for name in ("agrees", "padded", "speed"):
        monkeypatch.setattr(first_look.Look, name, lambda *_: {})
    monkeypatch.setattr(first_look.Look, "made", no_answer)
    rows = first_look.run(machine, "qwen-1.8b")
    failed = {row["question"]: row["failed"] for row in rows if "failed" in row}
    assert set(failed) == {"is the backbone made", "does it resume"}, "which needs the backbone"
    assert failed["is the backbone made"].startswith("RuntimeError: no kernel image @ test_gpu_suite.py:")
    assert len(rows) == 8


def test_after_an_error_of_cuda_nothing_more_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self: first_look.Look) -> dict:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(first_look.Look, "card", broken)
    assert len(first_look.run(Machine("cuda", True, tmp_path), "qwen-1.8b")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fails", [speed.PROCEDURE, speed.SIDES[2]])
def test_a_side_that_fails_leaves_the_others_rows(machine, fails: str, monkeypatch: pytest.MonkeyPatch):
    measured = speed.measured

    def one_fails(name: str, *given: object) -> dict:
        if name == fails:
            raise RuntimeError("out of luck")
        return measured(name, *given)

    monkeypatch.setattr(speed, "measured", one_fails)
    rows = speed.run(machine, "qwen-1.8b", 1, 1, sides=speed.SIDES[1:3])
    assert sorted(row["side"] for row in rows) == sorted(speed.SIDES[1:3])
    assert rows[0]["useful tokens/s"] > 0
    assert (rows[0]["x procedure"] == "the procedure failed") == (fails == speed.PROCEDURE)
    assert rows[1]["failed"].startswith("RuntimeError: out of luck @")
    assert "RuntimeError: out of luck" in suite.markdown(rows)


@pytest.mark.slow
def test_a_cell_that_fails_leaves_the_others(machine, monkeypatch: pytest.MonkeyPatch):
    measure = cells.measure

    def one_fails(machine: Machine, backbone: Backbone, config: RunConfig) -> dict:
        if config.dataset == "meld":
            raise RuntimeError("out of luck")
        return measure(machine, backbone, config)

    monkeypatch.setattr(cells, "measure", one_fails)
    monkeypatch.setattr(cells, "PAPER_DATASETS", ("meld", "cherma"))
    rows = cells.run(machine, "qwen-1.8b", "bf16")
    assert [(row["dataset"], row["fits"]) for row in rows] == [("meld", False), ("cherma", True)]
    assert "out of luck" in rows[0]["failed"]


def test_the_first_quarter_fits_and_each_part_has_its_time(monkeypatch: pytest.MonkeyPatch, capsys):
    assert sum(suite.FIRST_QUARTER.values()) <= 15 * 60
    assert set(suite.FIRST_QUARTER) <= set(suite.PARTS)
    assert next(iter(suite.FIRST_QUARTER)) == "first-look"
    assert set(CELL_PARTS) <= set(suite.FIRST_QUARTER)
    monkeypatch.setattr(suite, "DRY_S", 0.01)
    (result,) = suite.first_quarter("cpu", True, {"doctor": 1})
    assert result["failed"] == "took longer than it may"
    assert json.loads(capsys.readouterr().out) == result


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
