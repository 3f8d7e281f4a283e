"""`msekit plan`: bytes against loaded tensors, activations against what autograd keeps, advice, and no torch."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from transformers.cache_utils import Cache, DynamicCache

from msekit.backbones.catalogue import BACKBONES, Architecture
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.holding import MULTIPLE
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.lean_mlp_norm import find_parts, leaner
from msekit.backbones.passes.prefix import PrefixLayer
from msekit.backbones.passes.switch import put_over
from msekit.backbones.quantise import quantization_state
from msekit.backbones.shape import decoder_shape, shape_of
from msekit.errors import MsekitError
from msekit.paper import PAPER_BACKBONES, PAPER_DATASETS
from msekit.planning.memory import EVALUATION_BATCH, Holding, Workload, layer_bytes, weight_bytes
from msekit.planning.plan_run import Plan, plan_run
from msekit.reporter import Reporter
from msekit.runs.identity import settings_of
from msekit.settings.config import RunConfig
from msekit.settings.profiles import default_profile, profile_at_hand, read_profile
from msekit.settings.resolve import resolve, validated
from msekit.training.build import build

WEIGHTS_WITHIN = 0.05
ACTIVATIONS_WITHIN = 0.10
"""Beside the layers, autograd keeps a mask, the rotations and the last norm."""


def run(backbone: str = "qwen-1.8b", dataset: str = "meld", profile: str = "rtx4090", **given: object) -> RunConfig:
    asked = {"backbone": backbone, "dataset": dataset, "output": "out", "profile": profile, **given}
    return resolve(asked, task="msa" if dataset in ("mosei", "sims-v2") else "erc")


def held_bytes(model: torch.nn.Module) -> int:
    tensors = [*model.parameters(), *(tensor for _, tensor in quantization_state(model))]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("layout", ["paper", "prompt-first"])
@pytest.mark.parametrize("passes", ["auto", "plain"])
@pytest.mark.parametrize("dataset", ["meld", "mosei"])
def test_the_columns_that_a_gpu_s_keys_are_padded_to_are_counted(dataset: str, passes: str, layout: str):
    given = {"dataset": dataset, "layout": layout, "model": {"passes": passes}}
    gpu, cpu = (plan_run(run(profile=profile, **given)).work for profile in ("rtx4090", "cpu"))
    assert (gpu.tokens + gpu.prefix) % MULTIPLE == 0
    assert 0 <= gpu.tokens - cpu.tokens < MULTIPLE
    assert gpu.prefix == cpu.prefix


@pytest.mark.parametrize("held", ["none", "int8", "nf4", "nf4-double"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["tiny-llama", "qwen1-tiny", "chatglm3-tiny"])
def test_the_bytes_of_loaded_weights_are_foreseen(kind: str, dtype: str, held: str, request):
    name = kind if kind == "tiny-llama" else str(request.getfixturevalue("test_data") / "backbones" / kind)
    quantization, _, double = held.partition("-")
    foreseen = sum(weight_bytes(shape_of(name), Holding(dtype, quantization, double=bool(double))))
    backbone = load_backbone(name, quantization, dtype, device="cpu", double_quantization=bool(double))
    assert foreseen == pytest.approx(held_bytes(backbone.model), rel=WEIGHTS_WITHIN)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_the_bytes_of_the_real_small_llm_are_foreseen(quantization: str, smollm2: str):
    foreseen = sum(weight_bytes(shape_of(smollm2), Holding("bf16", quantization)))
    backbone = load_backbone(smollm2, quantization, "bf16", device="cpu")
    assert foreseen == pytest.approx(held_bytes(backbone.model), rel=0.005)


SMALL = {
    "vocab_size": 300,
    "hidden_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 64,
    "intermediate_size": 704,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16")])
@pytest.mark.parametrize(("kind", "kv_heads"), [("Llama", 4), ("Llama", 2), ("Qwen2", 4), ("Glm", 2)])
@pytest.mark.parametrize("lean", [True, False])
def test_what_autograd_keeps_is_foreseen(kind: str, kv_heads: int, dtype, precision: str, attention: str, lean: bool):
    config = getattr(transformers, f"{kind}Config")(
        **SMALL, num_key_value_heads=kv_heads, attn_implementation=attention
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype).eval().requires_grad_(False)
    parts, _ = find_parts(model)
    put_over(leaner(parts), on=lean)
    assert len(parts) == 3 + 7
    samples, tokens = 4, 70
    embeddings = torch.randn(samples, tokens, 256, dtype=dtype, requires_grad=True)
    mask = torch.ones(samples, tokens, dtype=torch.long)
    mask[0, :5] = 0
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # the tensors are held so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (address := tensor.untyped_storage().data_ptr()) not in own:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert output.last_hidden_state.requires_grad
    figures = Architecture(256, 3, 4, kv_heads, 64, 704, 300, 4096)
    work = Workload(samples, tokens, 1, 1, 1, 1, ())
    layer, _ = layer_bytes(
        decoder_shape(figures), work, Holding(precision, "none", eager=attention == "eager", lean=lean)
    )
    assert 3 * layer == pytest.approx(measured, rel=ACTIVATIONS_WITHIN)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_a_prefix_adds_is_foreseen(attention: str):
    """A prefix that was read once stands in every layer's keys and values, for every sample; nowhere else."""
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=4, attn_implementation=attention)
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    put_over(leaner(find_parts(model)[0]), on=True)
    samples, tokens, prefix = 4, 40, 60
    name = "cache" if "cache" in inspect.signature(model.model.forward).parameters else "past_key_values"

    def kept_bytes(columns: int, behind: int) -> int:
        cache = DynamicCache()
        with torch.no_grad():
            if behind:
                model.model(inputs_embeds=torch.randn(1, behind, 256), **{name: cache}, use_cache=True)
        read = Cache(layers=[PrefixLayer(layer.keys, layer.values) for layer in cache.layers]) if behind else None
        embeddings = torch.randn(samples, columns, 256, requires_grad=True)
        kept: dict[int, torch.Tensor] = {}
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        mask = torch.ones(samples, behind + columns, dtype=torch.long)
        mask[0, behind : behind + 3] = 0
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(inputs_embeds=embeddings, attention_mask=mask, **{name: read}, use_cache=bool(behind))
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    measured = kept_bytes(tokens, prefix) - kept_bytes(tokens, 0)
    shape, held = decoder_shape(Architecture(256, 3, 4, 4, 64, 704, 300, 4096)), Holding("fp32", "none")
    held = replace(held, eager=attention == "eager")
    behind, alone = (Workload(samples, tokens, 1, 1, 1, 1, (), prefix=length) for length in (prefix, 0))
    foreseen = 3 * (layer_bytes(shape, behind, held)[0] - layer_bytes(shape, alone, held)[0])
    assert foreseen == pytest.approx(measured, rel=ACTIVATIONS_WITHIN)


@pytest.mark.parametrize("kind", ["GPT2", "OPT"])
def test_an_architecture_that_is_not_known_by_heart_is_built_without_weights(kind: str, tmp_path: Path):
    config = getattr(transformers, f"{kind}Config")()
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else "OPTForCausalLM")(config)
    shape = shape_of(str(tmp_path))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    plan = plan_run(run(str(tmp_path), "synthetic-erc"))
    assert plan.memory.weights == 2 * shape.parameters


def test_the_catalogues_figures_give_the_published_sizes():
    billions = {name: shape_of(name).parameters for name in BACKBONES}
    assert billions["qwen-1.8b"] == 1_836_828_672
    assert billions["llama2-7b"] == 6_738_415_616
    assert billions["smollm2-135m"] == 134_515_008
    assert 2 * billions["chatglm3-6b"] == pytest.approx(12_487_168_064, rel=1e-4)


@pytest.mark.parametrize("dataset", PAPER_DATASETS)
@pytest.mark.parametrize("backbone", PAPER_BACKBONES)
def test_the_papers_runs_fit_the_papers_card(backbone: str, dataset: str):
    plan = plan_run(run(backbone, dataset))
    assert plan.fits
    assert plan.work.samples == plan.config.optim.batch_size
    assert plan.config.optim.accumulation == 1


def test_steps_are_counted_from_the_published_split():
    answer = plan_run(run("qwen-1.8b", "mosei")).as_json()
    assert answer["steps_per_epoch"] == 1021  # 16,326 samples in batches of 16
    assert answer["steps"] == 1021 * 30
    assert plan_run(run("qwen-1.8b", "cherma")).as_json()["steps"] is None


def test_auto_recomputes_only_where_it_has_to():
    tight = {"optim": {"batch_size": 32}}
    assert not plan_run(run("llama2-7b", "mosei")).checkpointing
    assert plan_run(run("llama2-7b", "mosei", "gpu-16gb", **tight)).checkpointing
    assert plan_run(run("llama2-7b", "mosei", model={"checkpointing": "on"})).checkpointing
    assert not plan_run(run("llama2-7b", "mosei", "gpu-16gb", model={"checkpointing": False}, **tight)).checkpointing


@pytest.mark.parametrize("layout", ["paper", "prompt-first"])
def test_the_sequence_is_that_of_the_runs_layout(layout: str):
    config = run(str(checkpoint_folder("tiny-llama")), "synthetic-erc", "cpu", layout=layout)
    laid_out, work = build(config, Reporter(quiet=True), splits=("train",)).model.layout, plan_run(config).work
    assert len(laid_out.opening) <= work.prefix <= len(laid_out.opening) + 2, "bos is assumed to be two tokens"
    text = config.data.text_limit or 65
    assert work.tokens - text - config.adapter.pseudo_tokens - (work.answers - 1) == len(laid_out.closing)


@pytest.mark.parametrize("layout", ["paper", "prompt-first"])
def test_the_questions_of_several_targets_are_counted(layout: str):
    config = run(str(checkpoint_folder("tiny-llama")), "synthetic-targets", "cpu", layout=layout)
    model, work = build(config, Reporter(quiet=True), splits=("train",)).model, plan_run(config).work
    assert work.answers == work.scored_answers == model.answers.nodes.scored
    text = config.data.text_limit or 65
    behind = work.tokens - text - config.adapter.pseudo_tokens - len(model.layout.closing)
    assert behind == len(model.answers.nodes.token)
    assert work.trainable == sum(parameter.numel() for parameter in model.adapter.parameters())


def test_a_prompt_that_is_read_once_costs_less():
    last, first = (plan_run(run("qwen-1.8b", "meld", layout=layout)) for layout in ("paper", "prompt-first"))
    assert first.work.tokens < last.work.tokens
    assert first.work.prefix - last.work.prefix == pytest.approx(last.work.tokens - first.work.tokens, abs=3)
    assert first.memory.activations < last.memory.activations
    assert first.as_json()["prefix_tokens"] == first.work.prefix


@pytest.mark.parametrize(
    ("adapter", "data", "modalities"),
    [
        ({"ablate": "no-audio"}, {}, {"vision"}),
        ({"ablate": "no-vision"}, {}, {"audio"}),
        ({}, {"without": ("audio",)}, {"vision"}),
        ({"name": "prompt"}, {}, set()),
        ({"name": "mag"}, {}, {"audio", "vision"}),
        ({"name": "chfn"}, {}, {"audio", "vision"}),
        ({"ablate": "no-audio-vision"}, {}, {"audio", "vision"}),
        ({"name": "mse-states"}, {}, {"audio", "vision"}),
        ({"name": "mse-states"}, {"without": ("vision",)}, {"audio"}),
    ],
)
def test_only_what_the_adapter_has_is_planned(adapter: dict, data: dict, modalities: set):
    config = run("tiny-llama", "synthetic-erc", "cpu", recipe="kit", adapter=adapter, data=data)
    model, work = build(config, Reporter(quiet=True), splits=("train",)).model, plan_run(config).work
    assert work.trainable == sum(parameter.numel() for parameter in model.adapter.parameters())
    assert len(work.encoders) == len(modalities)
    full = plan_run(run("tiny-llama", "synthetic-erc", "cpu", recipe="kit")).work
    assert full.tokens - work.tokens == 4 - model.adapter.pseudo_tokens


def test_frames_are_the_catalogues_or_those_of_a_yaml(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("name: mine\ntask: erc\nlabels: [a, b]\nlayout: csv\nframes: [7, 9]\n")
    plan = plan_run(run("qwen-1.8b", str(tmp_path / "mine.yaml"), recipe="kit"))
    assert [frames for frames, _, _ in plan.work.encoders] == [7, 9]
    assert not any("assumed; the files" in note for note in plan.notes)
    paper = plan_run(run("qwen-1.8b", "mosei", recipe="paper"))
    assert [frames for frames, _, _ in paper.work.encoders] == [500, 375]


def test_frames_that_are_read_by_their_statistics_have_no_lstm():
    wide = plan_run(run("qwen-1.8b", "cherma", recipe="best"))
    assert wide.work.encoders == ((1, 1024, 0), (1, 2048, 0))
    assert all(state for _, _, state in plan_run(run("qwen-1.8b", "cherma", recipe="kit")).work.encoders)


def test_seeds_that_train_at_once_are_planned_at_once():
    alone, five = (plan_run(run("llama2-7b", "mosei", recipe="kit"), seeds) for seeds in (1, 5))
    assert five.fits
    assert (alone.checkpointing, five.checkpointing) == (False, True)
    assert five.memory.optimizer == 5 * alone.memory.optimizer
    assert five.memory.weights == alone.memory.weights
    assert five.steps_per_epoch == alone.steps_per_epoch
    assert "fewer seeds at once" in plan_run(run("llama2-7b", "mosei", "gpu-12gb"), seeds=500).advice


def test_following_the_advice_makes_it_fit():
    plan = plan_run(run("llama2-7b", "mosei", "gpu-12gb", model={"quantization": "none"}))
    assert not plan.fits
    assert plan.advice == ("--set model.quantization=int8",)
    options = [text.removeprefix("--set ") for text in plan.advice]
    given = {"backbone": "llama2-7b", "dataset": "mosei", "output": "out", "profile": "gpu-12gb"}
    assert plan_run(resolve(given, task="msa", overrides=options)).fits


def test_fewer_bits_and_smaller_parts_need_less():
    totals = [
        plan_run(run("chatglm3-6b", "cherma", model={"quantization": kind, "checkpointing": "off"})).total
        for kind in ("none", "int8", "nf4")
    ]
    assert totals == sorted(totals, reverse=True)
    whole, parts = (plan_run(run(optim={"accumulation": number})) for number in (1, 4))
    assert parts.memory.activations < 0.4 * whole.memory.activations
    assert parts.steps_per_epoch == whole.steps_per_epoch


def with_memory(tmp_path: Path, gigabytes: float) -> str:
    file = tmp_path / f"{gigabytes}.yaml"
    file.write_text(f"device: cuda\nmemory_gb: {gigabytes}\n")
    return str(file)


def room_taken(plan: Plan) -> float:
    return plan.memory.scoring / (plan.profile.memory_bytes - plan.memory.standing)


def test_the_evaluation_batch_is_the_largest_that_there_is_room_for(tmp_path: Path):
    roomy = plan_run(run("llama2-7b", "mosei", with_memory(tmp_path, 80)))
    assert roomy.work.scored_samples == EVALUATION_BATCH["cuda"]
    tight = plan_run(run("llama2-7b", "mosei", with_memory(tmp_path, 14.5)))
    assert 1 < tight.work.scored_samples < EVALUATION_BATCH["cuda"]
    assert room_taken(tight) <= 0.5
    twice = run("llama2-7b", "mosei", tight.config.profile, evaluation={"batch_size": 2 * tight.work.scored_samples})
    assert room_taken(plan_run(twice)) > 0.5
    assert plan_run(twice).work.scored_samples == 2 * tight.work.scored_samples, "what is asked for is taken"
    assert plan_run(run("llama2-7b", "mosei", with_memory(tmp_path, 1))).work.scored_samples == 1
    assert plan_run(run("smollm2-135m", "meld", "cpu")).work.scored_samples == EVALUATION_BATCH["cpu"]


def test_a_run_made_with_a_profile_of_another_machine_is_planned_for_this_one(tmp_path: Path):
    assert profile_at_hand("h100") == "h100"
    mine = with_memory(tmp_path, 9)
    assert profile_at_hand(mine) == mine
    assert profile_at_hand(str(tmp_path / "theirs.yaml")) is None
    assert profile_at_hand(None) is None


def test_the_evaluation_batch_does_not_separate_runs():
    chosen, older = run(), run(evaluation={"batch_size": 16})
    assert validated({**chosen.model_dump(mode="json"), "evaluation": {"batch_size": 16}}) == older
    assert settings_of(chosen) == settings_of(older) == settings_of(run(evaluation={"batch_size": 7}))


def msekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "msekit", *arguments], capture_output=True, text=True, check=False)


def test_the_command_answers_in_json_without_torch():
    """Which is loaded for nothing but a card."""
    options = "plan --backbone qwen-1.8b --dataset mosei --profile rtx4090 --quantization nf4 --batch 8 --format json"
    program = f"import sys; sys.argv = ['msekit', *{options!r}.split()]\nfrom msekit.cli.main import app\n"
    program += "try: app()\nexcept SystemExit: pass\n"
    program += "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    without_card = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_card)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["quantization"], answer["batch_size"], answer["fits"]) == ("nf4", 8, True)
    assert answer["evaluation_batch_size"] == EVALUATION_BATCH["cuda"]
    parts = ("weights", "quantization_state", "activations", "activations_recomputed", "logits", "optimizer", "lstm")
    assert all(answer["memory"][part] > 0 for part in parts)


def test_the_table_says_what_to_change():
    done = msekit("plan", "--backbone", "qwen-72b", "--dataset", "meld", "--profile", "rtx4090")
    assert done.returncode == 0
    assert "It does not fit" in done.stdout
    assert "a smaller backbone" in done.stdout
    assert "evaluation in batches of 1;" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--backbone", "qwen-1.9b", "--dataset", "meld"], "qwen-1.8b"),
        (["--backbone", "nobody/nothing", "--dataset", "meld"], "hf download"),
        (["--backbone", "qwen-1.8b", "--dataset", "meld", "--profile", "rtx4091"], "rtx4090"),
        (["--backbone", "qwen-1.8b", "--dataset", "meld", "--batch", "0"], "batch_size"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], expected: str):
    done = msekit("plan", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_profiles_lie_under_the_recipe_and_the_published_pair():
    config = run("llama2-7b", "mosei", "gpu-12gb")
    assert (config.model.quantization, config.model.dtype, config.optim.accumulation) == ("nf4", "bf16", 2)
    assert (config.optim.batch_size, config.optim.lr) == (8, 5e-5)
    assert run("llama2-7b", "mosei", "gpu-12gb", model={"quantization": "none"}).model.quantization == "none"
    assert read_profile("rtx4090").memory_bytes == 24 << 30
    assert default_profile() == ("rtx4090" if torch.cuda.is_available() else "cpu")


def test_every_shipped_profile_reads_and_resolves():
    folder = Path(__file__).parents[2] / "configs" / "profiles"
    names = {path.stem for path in folder.glob("*.yaml")}
    assert names >= {"rtx4090", "cpu", "h100", "gpu-16gb", "gpu-12gb"}
    for name in names:
        assert run(profile=name).profile == name
        assert (folder / f"{name}.yaml").read_text().startswith("#")


def test_a_wrong_key_in_a_profile_of_ones_own(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("device: cuda\nmemory: 12\n")
    with pytest.raises(MsekitError, match="memory"):
        read_profile(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("device: cuda\nmemory_gb: 12\nsettings: {optim: {batchsize: 3}}\n")
    with pytest.raises(MsekitError, match="batchsize"):
        run(profile=str(tmp_path / "mine.yaml"))
