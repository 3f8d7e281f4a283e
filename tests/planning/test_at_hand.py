"""A run on the card at hand: the paper's profile with the card's name, memory and precision in place of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from cards import CARDS, Sold, put_in
from typer.testing import CliRunner

from msekit import doctor
from msekit.backbones.precision import default_dtype, dtype_here
from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.gpu import GIB, SPARE, card_at_hand
from msekit.planning.at_hand import beyond_card, fitted_line
from msekit.planning.memory import EVALUATION_BATCH
from msekit.planning.plan_run import Plan, plan_run
from msekit.reporter import Reporter
from msekit.runs.config import write_config
from msekit.runs.go_on import as_begun, refuse_taken
from msekit.runs.identity import apart
from msekit.settings.config import RunConfig
from msekit.settings.profiles import default_profile, profile_of
from msekit.settings.resolve import resolve
from msekit.training import fit
from msekit.training.fit import fitted, planned

CUDA = torch.device("cuda")
RUNS = [("qwen-1.8b", "meld"), ("qwen-1.8b", "mosei"), ("chatglm3-6b", "cherma"), ("llama2-7b", "mosei")]


def run(
    backbone: str = "llama2-7b", dataset: str = "mosei", overrides: tuple[str, ...] = (), **given: Any
) -> RunConfig:
    asked = {"backbone": backbone, "dataset": dataset, "output": "out", **given}
    return resolve(asked, task="msa" if dataset == "mosei" else "erc", overrides=overrides)


def way(plan: Plan) -> tuple[str, int, bool, int]:
    return plan.dtype, plan.config.optim.accumulation, plan.checkpointing, plan.work.scored_samples


@pytest.mark.parametrize("gigabytes", CARDS)
def test_the_default_is_the_papers_profile_on_the_card_at_hand(monkeypatch, gigabytes: int):
    put_in(monkeypatch, card := CARDS[gigabytes])
    assert default_profile() == "rtx4090"
    profile = profile_of(None)
    assert (profile.name, profile.bf16) == (card.name, card.major >= 8)
    assert profile.memory_bytes == pytest.approx(card.gib * GIB - SPARE, abs=1)
    assert run().profile is None
    assert run().model.dtype == "auto", "a run of this profile is not tied to this card"
    assert profile_of("rtx4090").memory_bytes == 24 * GIB


@pytest.mark.parametrize(("backbone", "dataset"), RUNS)
@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("gigabytes", CARDS)
def test_what_is_said_to_fit_fits(monkeypatch, gigabytes: int, seeds: int, backbone: str, dataset: str):
    put_in(monkeypatch, card := CARDS[gigabytes])
    plan = plan_run(run(backbone, dataset), seeds)
    assert plan.fits == (plan.total + SPARE <= int(card.gib * GIB))
    if not plan.fits:
        assert plan.advice
        options = tuple(line.removeprefix("--set ") for line in plan.advice)
        assert plan_run(run(backbone, dataset, options), seeds).fits


@pytest.mark.parametrize(
    ("gigabytes", "expected"),
    [
        (16, ("fp16", 2, True, 4)),
        (24, ("bf16", 1, False, 128)),
        (80, ("bf16", 1, False, 128)),
        (141, ("bf16", 1, False, 128)),
    ],
)
def test_a_seven_billion_llm_is_held_as_each_card_needs(monkeypatch, gigabytes: int, expected: tuple):
    put_in(monkeypatch, CARDS[gigabytes])
    plan = plan_run(run())
    assert plan.fits
    assert way(plan) == expected


@pytest.mark.parametrize(("gigabytes", "kind"), [(8, "nf4"), (12, "int8")])
def test_one_that_no_division_fits_asks_for_fewer_bits(monkeypatch, gigabytes: int, kind: str):
    put_in(monkeypatch, CARDS[gigabytes])
    plan = plan_run(run())
    assert not plan.fits
    assert plan.advice == (f"--set model.quantization={kind}",)
    assert plan.config.optim.accumulation == 1


def test_a_small_llm_needs_smaller_batches_in_evaluation_alone(monkeypatch):
    ways = {}
    for gigabytes, card in CARDS.items():
        with monkeypatch.context() as patch:
            put_in(patch, card)
            ways[gigabytes] = way(plan_run(run("qwen-1.8b")))
    assert {held[:3] for held in ways.values()} == {("bf16", 1, False), ("fp16", 1, False)}
    assert [held[3] for held in ways.values()] == [16, 64, 64, 128, 128, 128]


def test_a_larger_card_recomputes_and_divides_nothing_for_24_gb(monkeypatch):
    """Five seeds at once need recomputed layers on the paper's card, and none on a larger one."""
    for gigabytes, recomputed in ((24, True), (80, False), (141, False)):
        with monkeypatch.context() as patch:
            put_in(patch, CARDS[gigabytes])
            plan = plan_run(run("chatglm3-6b", "cherma"), seeds=5)
            assert way(plan) == ("bf16", 1, recomputed, EVALUATION_BATCH["cuda"])


def test_one_line_says_what_the_card_makes_otherwise(monkeypatch):
    put_in(monkeypatch, CARDS[16])
    assert fitted_line(plan_run(run())) == (
        "on Tesla T4 (13.6 GiB to use, no bf16): fp16 with loss scaling, a batch in 2 parts, layers recomputed, "
        "evaluation in batches of 4"
    )
    assert fitted_line(plan_run(run()), training=False) == (
        "on Tesla T4 (13.6 GiB to use, no bf16): fp16, evaluation in batches of 4"
    )
    put_in(monkeypatch, CARDS[24])
    assert fitted_line(plan_run(run())) is None
    put_in(monkeypatch, CARDS[141])
    assert fitted_line(plan_run(run())) is None


class Heard(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_run_is_told_before_it_is_loaded(monkeypatch):
    """On a card on which even the tiny LLM's batch has to be divided."""
    put_in(monkeypatch, CARDS[16])
    least = ("model.checkpointing=on", "evaluation.batch_size=1")
    needed = [
        plan_run(run("tiny-llama", "synthetic-erc", (*least, f"optim.accumulation={parts}"))).total for parts in (1, 2)
    ]
    put_in(monkeypatch, Sold("Small", (sum(needed) / 2 + SPARE) / GIB, 7))
    config, heard = fitted(run("tiny-llama", "synthetic-erc")), Heard()
    assert config.optim.accumulation == 2
    assert planned(config, heard)[0] is False, "half a batch needs nothing recomputed"
    assert heard.warnings == []
    assert len(heard.notes) == 1
    assert "fp16 with loss scaling, a batch in 2 parts" in heard.notes[0]


def test_what_is_asked_for_is_taken(monkeypatch):
    put_in(monkeypatch, CARDS[16])
    assert plan_run(run()).config.optim.accumulation == 2
    assert not plan_run(run(overrides=("optim.accumulation=1",))).fits
    assert not plan_run(run(overrides=("model.checkpointing=off",))).checkpointing
    assert plan_run(run(overrides=("model.dtype=fp32",))).dtype == "fp32"


def test_a_run_goes_on_in_the_parts_that_it_was_begun_in(monkeypatch, tmp_path: Path):
    put_in(monkeypatch, CARDS[16])
    begun = fitted(run(output=str(tmp_path)))
    assert begun.optim.accumulation == 2
    write_config(begun)
    put_in(monkeypatch, CARDS[141])
    assert fitted(run(output=str(tmp_path))).optim.accumulation == 1
    assert fitted(run(output=str(tmp_path)), resume=True).optim.accumulation == 2
    asked = run(output=str(tmp_path), overrides=("optim.accumulation=4",))
    assert fitted(asked, resume=True).optim.accumulation == 4


def test_a_divided_run_is_known_again_on_another_machine(monkeypatch, tmp_path: Path):
    """Where it is finished or stopped: the very same command asks for it, and no parts."""
    put_in(monkeypatch, CARDS[16])
    begun = fitted(run(output=str(tmp_path)))
    assert begun.optim.accumulation == 2
    assert apart(begun, as_begun(run(), begun)) == []
    write_config(begun)
    with pytest.raises(MsekitError, match="Continue it with --resume"):
        refuse_taken(run(output=str(tmp_path)), resume=False)
    asked = run(overrides=("optim.accumulation=4",))
    assert apart(begun, as_begun(asked, begun)) == ["optim.accumulation: 2 → 4"]


def test_a_backbone_that_is_to_be_downloaded_is_so_before_it_is_planned_for(monkeypatch):
    put_in(monkeypatch, CARDS[16])
    monkeypatch.setattr(fit, "checkpoint_folder", lambda name: pytest.fail(name))
    with pytest.raises(pytest.fail.Exception, match="someone/something"):
        fitted(run("someone/something"))


def test_the_allocator_is_settled_before_cuda_starts(monkeypatch):
    put_in(monkeypatch, CARDS[24])
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    properties, seen = torch.cuda.get_device_properties, []
    monkeypatch.setattr(
        "torch.cuda.get_device_properties",
        lambda number: seen.append(os.environ.get("PYTORCH_ALLOC_CONF")) or properties(number),
    )
    run()
    assert seen
    assert set(seen) == {"expandable_segments:True"}


@pytest.mark.parametrize("profile", ["rtx4090", "gpu-16gb", "h100"])
def test_a_named_profile_that_exceeds_the_card_is_warned_of(monkeypatch, profile: str):
    put_in(monkeypatch, CARDS[16])
    config, heard = run("tiny-llama", "synthetic-erc", profile=profile), Heard()
    plan = plan_run(config)
    assert plan.profile.name == profile
    planned(config, heard)
    memory, bf16 = heard.warnings
    assert f"profile {profile} counts on" in memory
    assert "Tesla T4 (14.6 GiB, no bf16)" in memory
    assert "model.dtype=fp16" in bf16
    assert set(heard.warnings) <= set(plan.notes), "`plan` says it too"


@pytest.mark.parametrize(("profile", "gigabytes"), [("gpu-12gb", 12), ("rtx4090", 24), ("rtx4090", 141), ("h100", 80)])
def test_one_that_does_not_is_not(monkeypatch, profile: str, gigabytes: int):
    put_in(monkeypatch, CARDS[gigabytes])
    assert beyond_card(plan_run(run("qwen-1.8b", profile=profile))) == []


def test_a_run_that_fills_a_profile_to_the_brim_is_warned_of_on_a_card_with_a_little_less(monkeypatch, tmp_path: Path):
    put_in(monkeypatch, CARDS[24])
    plan = next(
        plan
        for size in range(8, 400, 2)
        if (plan := plan_run(run(profile="rtx4090", overrides=(f"optim.batch_size={size}",)))).total > 23.7 * GIB
    )
    assert plan.fits
    assert len(beyond_card(plan)) == 1


@pytest.mark.parametrize("gigabytes", CARDS)
def test_doctor_and_what_is_loaded_agree(monkeypatch, gigabytes: int):
    put_in(monkeypatch, card := CARDS[gigabytes])
    found = doctor.gpu(0)
    assert found["dtype"] == default_dtype(CUDA) == plan_run(run("qwen-1.8b")).dtype
    assert found["bf16"] == (found["dtype"] == "bf16") == (card.major >= 8)
    assert default_dtype(torch.device("cpu")) == "fp32"


def test_what_was_trained_in_bf16_is_not_imitated_on_another_card(monkeypatch):
    put_in(monkeypatch, CARDS[16])
    assert dtype_here("bfloat16", CUDA) == dtype_here("float16", CUDA) == "fp16"
    assert dtype_here("float32", CUDA) == "fp32"
    put_in(monkeypatch, CARDS[80])
    assert (dtype_here("bfloat16", CUDA), dtype_here("float16", CUDA)) == ("bf16", "fp16")


def test_processes_on_cards_of_their_own_do_what_fits_the_smallest(monkeypatch):
    put_in(monkeypatch, CARDS[80], CARDS[16])
    assert card_at_hand().name == "NVIDIA H100 80GB HBM3"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (card_at_hand().name, card_at_hand().bf16) == ("Tesla T4", False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert card_at_hand().name == "Tesla T4", "more processes than cards"


def test_without_a_card_there_is_the_cpus_profile(monkeypatch):
    put_in(monkeypatch, CARDS[24])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (card_at_hand(), default_profile(), profile_of(None).name) == (None, "cpu", "cpu")


def test_the_command_plans_for_the_card(monkeypatch):
    put_in(monkeypatch, CARDS[16])
    done = CliRunner().invoke(app, ["plan", "--backbone", "llama2-7b", "--dataset", "mosei"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "It fits." in said
    assert "llama2-7b on mosei, Tesla T4" in said
    assert "fp16, quantization none; batches of 8 in 2 parts" in said
    assert "a batch in 2 parts, layers recomputed, evaluation in batches of 4" in said
