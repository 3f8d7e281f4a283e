"""The order of the sequence, and the part that the backbone reads once: same loss, gradients and scores as without."""

from __future__ import annotations

import pytest
import torch
from test_mse_model import ERC, MSA, batch_of, row_of
from transformers import AutoConfig, AutoModelForCausalLM

from msekit.adapters.mse import MSEAdapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.model.labels import LabelSpace
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout

ORDERS = ("paper", "prompt-first")
SIZES = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ARCHITECTURES = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 96},
    "qwen2": {"num_key_value_heads": 2, "intermediate_size": 96},
    "mistral": {"num_key_value_heads": 2, "intermediate_size": 96, "sliding_window": 4096},
    "gpt_neox": {"intermediate_size": 96},
    "glm": {"num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16, "pad_token_id": 0},
    "gpt2": {},
    "phi": {"intermediate_size": 96},
}


def model_of(backbone: Backbone, spec=ERC, order="paper", cached=True) -> MSEModel:
    torch.manual_seed(0)
    adapter = MSEAdapter(backbone.text_dim, 6, 5, 8, 4, 3, conditioning="unit")
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt, order)
    model = MSEModel(backbone, adapter, layout, LabelSpace(spec, backbone.encode, backbone.end))
    if not cached:
        model.__dict__["prefix"] = None  # what an architecture without keys and values gets
    return model


def architecture(name: str, tiny: Backbone, attention: str = "eager") -> Backbone:
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, **SIZES, **ARCHITECTURES[name], initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return Backbone(name, model, tiny.tokenizer, "random")


def outcome(model: MSEModel, batch):
    """Loss, gradients and scores."""
    loss = model(batch)
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()], model.score(batch)


def assert_same(model: MSEModel, other: MSEModel, batch) -> None:
    assert model.prefix is not None
    assert other.prefix is None
    (loss, gradients, scores), (loss_2, gradients_2, scores_2) = outcome(model, batch), outcome(other, batch)
    assert torch.allclose(loss, loss_2, rtol=1e-5)
    scale = max(float(g.abs().max()) for g in gradients_2)
    for mine, theirs in zip(gradients, gradients_2, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * max(scale, 1)
    assert torch.allclose(scores, scores_2, atol=2e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spec", [MSA, ERC], ids=["intensities", "12 classes"])
def test_what_is_read_once_changes_nothing(tiny, spec, order):
    assert_same(model_of(tiny, spec, order), model_of(tiny, spec, order, cached=False), batch_of(tiny, [3, 10, 7]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_on_other_architectures(tiny, name, attention):
    backbone = architecture(name, tiny, attention)
    models = model_of(backbone, MSA, "prompt-first"), model_of(backbone, MSA, "prompt-first", cached=False)
    assert_same(*models, batch_of(tiny, [3, 10, 7]))


def test_recomputed_layers_read_the_prefix_again(tiny):
    backbone = load_backbone("tiny-llama", device="cpu", checkpointing=True)
    models = model_of(backbone, ERC, "prompt-first"), model_of(tiny, ERC, "prompt-first", cached=False)
    assert_same(*models, batch_of(tiny, [3, 10, 7]))


def test_an_architecture_without_keys_and_values_reads_all_of_it_every_time(tiny):
    torch.manual_seed(1)
    sizes = SIZES | {"num_hidden_layers": 3, "intermediate_size": 96, "lru_width": 64, "attention_window_size": 64}
    config = AutoConfig.for_model("recurrent_gemma", **sizes)
    backbone = Backbone("recurrent", AutoModelForCausalLM.from_config(config), tiny.tokenizer, "random")
    model = model_of(backbone, ERC, "prompt-first")
    assert model.prefix is None
    assert torch.isfinite(model(batch_of(tiny, [3, 10, 7])))


@pytest.mark.parametrize("order", ORDERS)
def test_the_batch_a_sample_is_in_changes_nothing(tiny, order):
    model, batch = model_of(tiny, MSA, order), batch_of(tiny, [0, 1, 2])
    together = model.score(batch)
    for row in range(3):
        assert torch.allclose(together[row], model.score(row_of(batch, row))[0], atol=1e-5)


@pytest.mark.parametrize(("spec", "cue"), [(MSA, "="), (ERC, ": ")])
def test_the_prompt_first_layout_token_by_token(tiny, spec, cue):
    model, batch = model_of(tiny, spec, "prompt-first"), batch_of(tiny, [10, 1, 2])
    stem = spec.task_prompt.removesuffix(cue)
    assert stem + cue == spec.task_prompt
    assert model.layout.opening == [*tiny.bos, *tiny.encode(f"{stem} <av>")]
    assert model.layout.closing == tiny.encode(f"</av>{cue}")
    whole, rest = model.laid_out(batch), model.for_training(batch)
    read = len(model.layout.opening)
    real = rest.mask.bool()
    assert torch.equal(rest.embeddings[real], whole.embeddings[:, read:][real])
    assert torch.equal(rest.behind(model.prefix).positions[real], whole.positions[:, read:][real])
    assert rest.behind(model.prefix).mask[:, :read].all()


def test_another_prompt_is_read_anew(tiny):
    model, fresh = model_of(tiny, MSA, "prompt-first"), model_of(tiny, MSA, "prompt-first")
    batch, other = batch_of(tiny, [3, 10, 7]), PromptLayout(tiny.encode, tiny.bos, "Mood=", "prompt-first")
    before = model.score(batch)
    for each in (model, fresh):
        each.lay_out(other)
    assert torch.equal(model.score(batch), fresh.score(batch))
    assert (model.score(batch) - before).abs().max() > 1e-3


def test_the_layout_is_part_of_the_prompts_identity(tiny):
    hashes = {model_of(tiny, spec, order).layout.sha256 for spec in (MSA, ERC) for order in ORDERS}
    assert len(hashes) == 4


def test_a_tokenizer_without_a_beginning(tiny):
    layout = PromptLayout(tiny.encode, [], "")
    assert layout.opening == tiny.encode("<av>")
    model = model_of(tiny, ERC)
    model.layout.opening = []
    assert model.prefix is None
    assert torch.isfinite(model(batch_of(tiny, [3, 10, 7])))
