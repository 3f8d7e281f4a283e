"""Joined products and fused norms: the same values by fewer launches, weights held once, and nothing by default."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from whole_pass import assert_alike, model_of

from msekit.backbones.backbone import Backbone
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.choose import PassSettings
from msekit.backbones.passes.joined import Joined, groups_of, obstacle
from msekit.backbones.passes.lean_mlp_norm import FrozenRMSNorm, _norm, fused_norm
from msekit.backbones.passes.switch import put_over
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError

SHORTER = ("prefix", "last-layer", "lean-parts", "joined")
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}


def made(kind: str, **more: object) -> nn.Module:
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **more)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


@pytest.mark.parametrize(
    ("kind", "recompute", "prompt_first"), [("llama", False, False), ("qwen2", False, True), ("qwen2", True, False)]
)
def test_joined_products_compute_the_same(tiny: Backbone, kind: str, recompute: bool, prompt_first: bool):
    """Qwen2's queries, keys and values have biases."""
    settings = PassSettings(SHORTER, recompute=recompute)
    backbone = Backbone("small", made(kind), tiny.tokenizer, "random", settings)
    assert backbone.passes.uses == SHORTER
    assert_alike(*model_of(backbone, DATASETS["synthetic-msa"], prompt_first), SHORTER, SHORTER[:1])


def test_one_product_is_computed_for_all(monkeypatch: pytest.MonkeyPatch):
    model = made("llama").requires_grad_(False)
    groups, sizes, linear = groups_of(model), [], F.linear
    assert [len(group) for group in groups] == [3, 2, 3, 2, 2], "the last layer's queries are left alone"
    put_over(Joined(model).forwards, on=True)
    monkeypatch.setattr(F, "linear", lambda x, w, b=None: sizes.append(len(w)) or linear(x, w, b))
    model(inputs_embeds=torch.randn(2, 5, 64))
    layer = [64 + 32 + 32, 64, 96 + 96, 64]
    assert sizes == [*layer, *layer, 64, 32, 32, *layer[1:], 320]


def test_weights_are_held_once_and_stay_what_they_are():
    model = made("qwen2").requires_grad_(False)
    before, named = fingerprint_model(model), {name: tensor.clone() for name, tensor in model.named_parameters()}
    assert len(groups_of(model)) == 5
    put_over(Joined(model).forwards)
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, named[name])
    query, key, value = groups_of(model)[0]
    storages = {part.weight.untyped_storage().data_ptr() for part in (query, key, value)}
    assert len(storages) == 1
    assert query.weight.untyped_storage().nbytes() == 4 * 64 * (64 + 32 + 32)
    assert fingerprint_model(model) == before


def test_who_is_called_with_another_input_computes_for_itself():
    model = made("llama").requires_grad_(False)
    attention = model.model.layers[0].self_attn
    x, other = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    plain = [part(each) for part, each in ((attention.q_proj, x), (attention.k_proj, other), (attention.v_proj, x))]
    switch = put_over(Joined(model).forwards, on=True)
    mine = [attention.q_proj(x), attention.k_proj(other), attention.v_proj(x)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(mine, plain, strict=True))
    again = attention.v_proj(x)
    assert torch.allclose(again, plain[2], atol=1e-5), "asked twice"
    switch.on = False
    assert torch.allclose(attention.k_proj(x), F.linear(x, attention.k_proj.weight))


def test_it_is_taken_where_it_is_asked_for_alone():
    chosen = load_backbone("tiny-llama", device="cpu").passes
    assert "joined" not in chosen.uses
    assert "only where model.passes asks for it" in chosen.refused["joined"]
    named = load_backbone("tiny-llama", device="cpu", passes=("joined",))
    assert named.passes.uses == ("joined",)


@pytest.mark.parametrize(
    ("passes", "quantization", "why"),
    [
        (("joined", "written-out"), "none", "products of their own"),
        (("joined", "compiled"), "none", "joins products itself"),
        (("joined",), "int8", "none of its modules"),
    ],
)
def test_where_it_cannot_be_it_is_refused(passes: tuple[str, ...], quantization: str, why: str):
    with pytest.raises(MsekitError, match=f"'joined' through the LLM cannot be used: .*{why}"):
        load_backbone("tiny-llama", quantization, device="cpu", passes=passes)


def test_an_architecture_without_such_layers_has_nothing_to_join():
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("gpt2", vocab_size=32, n_embd=16, n_layer=1, n_head=2)
    assert obstacle(transformers.AutoModelForCausalLM.from_config(config)).startswith("none of its modules")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_gpu_s_fused_norm_computes_what_transformers_does(dtype: torch.dtype):
    """By torch's own reference of the kernel; on a GPU it has not been run."""
    generator = torch.Generator().manual_seed(0)
    norm = LlamaRMSNorm(96, eps=1e-5).to(dtype).requires_grad_(False)
    norm.weight.copy_(1 + torch.rand(96, generator=generator))
    x = (3 * torch.randn(4, 7, 96, generator=generator)).to(dtype).requires_grad_()
    asked = torch.randn(4, 7, 96, generator=generator).to(dtype)
    values = [fused_norm(x, norm.weight, 1e-5), norm(x), FrozenRMSNorm.apply(x, norm.weight, 1e-5)]
    gradients = [torch.autograd.grad(value, x, asked)[0].float() for value in values]
    assert torch.equal(values[0], values[1])
    largest = float(gradients[1].abs().max())
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=4 * torch.finfo(dtype).eps * largest)


def test_only_a_gpu_takes_it(monkeypatch: pytest.MonkeyPatch):
    norm, taken = LlamaRMSNorm(8).requires_grad_(False), []
    monkeypatch.setattr("msekit.backbones.passes.lean_mlp_norm.fused_norm", lambda *given: taken.append(given))
    _norm(norm, torch.zeros(1, 8))
    assert not taken
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    _norm(norm, torch.zeros(1, 8))
    assert len(taken) == 1
