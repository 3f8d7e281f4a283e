"""The order of the sequence, and the part that the backbone reads once: same loss, gradients and scores as without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from as_on_gpu import ON, bound, fp32_alone
from rounding import furthest, rounding
from test_mse_model import ERC, MSA, batch_of, row_of
from transformers import AutoConfig, AutoModelForCausalLM

from msekit.adapters.mse import MSEAdapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.backbones.sequence import Sequence
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


def model_of(backbone: Backbone, spec=ERC, order="paper") -> MSEModel:
    torch.manual_seed(0)
    adapter = MSEAdapter(backbone.text_dim, 6, 5, 8, 4, 3, conditioning="unit")
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt, order)
    return MSEModel(backbone, adapter, layout, LabelSpace(spec, backbone.encode, backbone.end))


def architecture(name: str, tiny: Backbone, attention: str = "eager") -> Backbone:
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, **SIZES, **ARCHITECTURES[name], initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return Backbone(name, model, tiny.tokenizer, "random")


def outcome(model: MSEModel, batch, ways: tuple[str, ...] = ()) -> list[torch.Tensor]:
    """Loss, gradients in one row and scores, computed by these shorter ways alone."""
    model.zero_grad()
    with model.backbone.passes.limited(ways):
        loss = model(batch)
        loss.backward()
        return [loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()]), model.score(batch)]


def bounds(model: MSEModel, batch) -> list[float]:
    return rounding(
        model.backbone, lambda other: outcome(MSEModel(other, model.adapter, model.layout, model.labels), batch)
    )


def assert_same(model: MSEModel, batch, ways: tuple[str, ...] = ("prefix",)) -> None:
    """With the prefix that was read before, and without any shorter way."""
    assert model.prefix is not None
    apart = furthest(outcome(model, batch, ways), outcome(model, batch))
    assert all(mine <= bound for mine, bound in zip(apart, bounds(model, batch), strict=True))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spec", [MSA, ERC], ids=["intensities", "12 classes"])
def test_what_is_read_once_changes_nothing(tiny, spec, order):
    assert_same(model_of(tiny, spec, order), batch_of(tiny, [3, 10, 7]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_on_other_architectures(tiny, name, attention):
    backbone = architecture(name, tiny, attention)
    assert_same(model_of(backbone, MSA, "prompt-first"), batch_of(tiny, [3, 10, 7]))


LAYERS = "lean-parts" if ON else "written-out"
"""A GPU has none of a CPU's layers."""


@pytest.mark.parametrize("ways", [("prefix",), ("prefix", "lean-parts", LAYERS)], ids=lambda ways: ways[-1])
def test_recomputed_layers_read_the_prefix_again(tiny, ways: tuple[str, ...]):
    backbone = load_backbone("tiny-llama", device="cpu", checkpointing=True)
    assert_same(model_of(backbone, ERC, "prompt-first"), batch_of(tiny, [3, 10, 7]), ways)


@fp32_alone
@pytest.mark.parametrize("fault", ["a token", "a position"])
def test_a_prefix_that_is_read_wrongly_is_no_rounding(tiny, fault: str, monkeypatch: pytest.MonkeyPatch):
    model, batch = model_of(tiny, ERC, "prompt-first"), batch_of(tiny, [3, 10, 7])
    if fault == "a token":
        first, second, *others = model.layout.opening
        other = tiny.prefix((first, second + 1, *others))
        monkeypatch.setattr(MSEModel, "prefix", other)
    else:
        right = Sequence.behind
        monkeypatch.setattr(
            Sequence, "behind", lambda self, prefix: right(replace(self, positions=self.positions + 1), prefix)
        )
    mine = outcome(model, batch, ("prefix",))
    monkeypatch.undo()
    apart = furthest(mine, outcome(model, batch))
    assert all(wrong > 10 * bound for wrong, bound in zip(apart, bounds(model, batch), strict=True))


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
        assert torch.allclose(together[row], model.score(row_of(batch, row))[0], atol=bound(1e-5, 0.02))


@pytest.mark.parametrize(("spec", "cue"), [(MSA, "="), (ERC, ": ")])
def test_the_prompt_first_layout_token_by_token(tiny, spec, cue):
    model, batch = model_of(tiny, spec, "prompt-first"), batch_of(tiny, [10, 1, 2])
    stem = spec.task_prompt.removesuffix(cue)
    assert stem + cue == spec.task_prompt
    assert model.layout.opening == [*tiny.bos, *tiny.encode(f"{stem} <av>")]
    assert model.layout.closing == tiny.encode(f"</av>{cue}")
    whole, rest = model.laid_out(batch).sequence, model.for_training(batch).sequence
    read = len(model.layout.opening)
    real = rest.mask.bool()
    assert torch.equal(rest.embeddings[real], whole.embeddings[:, read:][real])
    assert torch.equal(rest.behind(model.prefix).positions[real], whole.positions[:, read:][real])
    assert rest.behind(model.prefix).mask[:, :read].all()


def test_another_prompt_is_read_anew(tiny):
    model, fresh = model_of(tiny, MSA, "prompt-first"), model_of(tiny, MSA, "prompt-first")
    batch, other = batch_of(tiny, [3, 10, 7]), PromptLayout(tiny.encode, tiny.bos, "Mood=", "prompt-first")
    before = model.score(batch)
    changed = model.laid_out_as(other)
    assert torch.equal(changed.score(batch), fresh.laid_out_as(other).score(batch))
    assert torch.equal(model.score(batch), before), "the model itself is left as it is"
    assert (changed.score(batch) - before).abs().max() > 1e-3


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
