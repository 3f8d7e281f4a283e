"""The one door to the frozen pass: what turns ways on and off, what is told of them, and who else is left alone."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from typer.testing import CliRunner
from whole_pass import model_of, outcome, outcome_by

from msekit.backbones.holding import WAYS
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.choose import PassSettings, choose
from msekit.backbones.passes.twin import small_twin
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.doctor import passes as passes_here
from msekit.errors import MsekitError
from msekit.settings.resolve import dump, resolve
from msekit.training.build import load_frozen

GIVEN = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "none"}


def test_plain_is_transformers_own_pass():
    backbone, auto = (
        load_backbone("tiny-llama", device="cpu", passes="plain"),
        load_backbone("tiny-llama", device="cpu"),
    )
    assert backbone.passes.uses == ()
    assert set(backbone.passes.refused) == set(WAYS)
    mine = outcome(*model_of(backbone, DATASETS["synthetic-erc"]))
    assert all(map(torch.equal, mine, outcome_by((), *model_of(auto, DATASETS["synthetic-erc"]))))


def test_every_way_is_used_or_refused_with_a_reason(name_of, caplog: pytest.LogCaptureFixture):
    for kind in ("tiny-llama", "gpt2", "chatglm3"):
        chosen = load_backbone(name_of(kind), device="cpu").passes
        assert set(chosen.uses) | set(chosen.refused) >= set(WAYS)
        assert not set(chosen.uses) & set(chosen.refused)
        assert all(chosen.refused.values())
    assert not caplog.messages, "what does not apply is no news"


@pytest.mark.parametrize(("passes", "uses"), [("prefix", ("prefix",)), ("[lean-parts, last-layer]", WAYS[1:3])])
def test_a_run_names_the_ways_that_it_wants(passes: str, uses: tuple[str, ...]):
    config = resolve(GIVEN, task="erc", overrides=[f"model.passes={passes}"])
    assert load_frozen("tiny-llama", config.model, False).passes.uses == uses
    assert "passes:" in dump(config)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model.passes=[prefix, shortcut]"],
            "auto, plain, prefix, last-layer, lean-parts, joined, triton, written-out, compiled",
        ),
        (["model.passes=3"], "neither auto, plain nor a list"),
        (["model.passes=plain", "model.compile=true"], "model.passes for the plain one"),
        (["model.passes=[compiled, written-out]"], "does not go with"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides: list[str], said: str):
    with pytest.raises(MsekitError, match=said):
        resolve(GIVEN, task="erc", overrides=overrides)


def test_a_way_by_name_that_cannot_be_used_is_refused(name_of):
    with pytest.raises(
        MsekitError, match=r"'written-out' through the LLM cannot be used: GPT2Block is none of"
    ) as error:
        load_backbone(name_of("gpt2"), device="cpu", passes=("written-out",))
    assert "model.passes=auto" in str(error.value.fix)
    with pytest.raises(MsekitError, match="no way through the LLM is named 'shortcut'"):
        load_backbone("tiny-llama", device="cpu", passes="shortcut")


def test_a_pass_that_is_limited_is_whole_again_behind_it(tiny):
    uses, run = tiny.passes.uses, tiny.passes.run
    with tiny.passes.limited(("prefix",)):
        assert tiny.passes.uses == ("prefix",)
        with tiny.passes.limited(()):
            assert tiny.prefix((1, 5)) is None
        assert tiny.prefix((1, 5)) is not None
    assert (tiny.passes.uses, tiny.passes.run) == (uses, run)
    with (
        pytest.raises(MsekitError, match="'compiled': only where"),
        tiny.passes.limited(("compiled",)),
    ):
        pass


def test_deciding_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    backbone = load_backbone("tiny-llama", device="cpu")
    assert backbone.passes.uses
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "glm", "gpt2", "gpt_neox", "mixtral", "deepseek_v3", "gemma3_text"])
def test_a_twin_has_layers_of_every_kind_and_is_small(kind: str):
    config = transformers.AutoConfig.for_model(kind)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    depth = config.num_hidden_layers
    twin = small_twin(model)
    assert sum(parameter.numel() for parameter in twin.parameters()) <= 50_000_000
    assert all(parameter.dtype == torch.float32 for parameter in twin.parameters())
    assert model.config.num_hidden_layers == depth > twin.config.num_hidden_layers


def test_an_architecture_of_which_no_twin_can_be_made_is_computed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    backbone, begin = load_backbone("tiny-llama", device="cpu"), LlamaForCausalLM.__init__

    def picky(self, config, *arguments):
        if config.vocab_size < 100:
            raise ValueError("too few tokens")
        begin(self, config, *arguments)

    monkeypatch.setattr(LlamaForCausalLM, "__init__", picky)
    assert backbone.passes.uses == ("lean-parts",)
    assert len(caplog.messages) == 3
    said = "no small twin of LlamaForCausalLM can be made (the code of its architecture does not take"
    assert all(said in line and "(test_choose.py, " in line for line in caplog.messages), "where it broke off, too"
    outcome(*model_of(backbone, DATASETS["synthetic-erc"]))


def test_transformers_is_quiet_while_loading_alone():
    logger = logging.getLogger("transformers")
    before, bars = logger.level, transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.INFO)
    try:
        load_backbone("tiny-llama", device="cpu")
        assert logger.level == logging.INFO
        assert transformers.utils.logging.is_progress_bar_enabled() is bars
    finally:
        logger.setLevel(before)


def test_doctor_knows_the_ways_of_a_small_llm(tiny):
    assert passes_here() == {"used": list(tiny.passes.uses), "refused": tiny.passes.refused}


@pytest.mark.slow
def test_a_run_tells_what_was_used(tmp_path: Path):
    words = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--epochs", "1", "--limit-train", "32"]
    words += ["--output", str(tmp_path / "run"), "--set", "model.passes=prefix", "--set", "optim.opinion_samples=1"]
    shown = CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False)
    said = shown.stdout + shown.stderr
    assert "shorter ways through the LLM: prefix" in said
    assert "not written-out: model.passes leaves it out" in said
    done = subprocess.run([sys.executable, "-m", "msekit", *words], capture_output=True, text=True, check=True)
    assert "transformers" not in done.stderr, "none of its warnings"
    (report,) = (tmp_path / "run").rglob("report.json")
    passes = json.loads(report.read_text())["passes"]
    assert passes["used"] == ["prefix"]
    assert passes["refused"]["written-out"] == "model.passes leaves it out"


@pytest.mark.parametrize("within", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_ways_are_chosen_alike_whatever_the_caller_is_within(within, caplog: pytest.LogCaptureFixture):
    usual = load_backbone("tiny-llama", device="cpu").passes.uses
    with within():
        assert load_backbone("tiny-llama", device="cpu").passes.uses == usual
    assert not caplog.messages


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_no_prefix_where_rotations_depend_on_the_length(kind: str):
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8} if kind == "longrope" else {"factor": 2.0}
    rotation = {"rope_type": kind, "rope_theta": 10000.0, "original_max_position_embeddings": 64, **factors}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        vocab_size=99, max_position_embeddings=256, rope_parameters=rotation, attn_implementation="eager", **sizes
    )
    chosen = choose(LlamaForCausalLM(config).eval().requires_grad_(False), PassSettings())
    assert "prefix" not in chosen.uses
    assert kind in chosen.refused["prefix"]
