"""Layers between whose products own kernels compute: right, few launches, tried where they run, off unless named."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from fake_cuda import GPU
from launches import Launches
from reference_operators import LAUNCHED, in_their_place
from whole_pass import assert_alike, model_of

from msekit.backbones.backbone import Backbone
from msekit.backbones.gpu.fused_layers import obstacle
from msekit.backbones.load import load_backbone
from msekit.backbones.passes import choose, findings
from msekit.backbones.passes.choose import PassSettings
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError

SHORTER = ("prefix", "last-layer", "lean-parts", "joined", "triton")
SIZES = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.2}


def made(kind: str, attention: str = "sdpa", layers: int = 3) -> Any:
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **HEADS, num_hidden_layers=layers)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize(
    ("kind", "recompute", "prompt_first", "attention"),
    [
        ("llama", False, False, "sdpa"),
        ("qwen2", False, True, "sdpa"),
        ("mistral", True, False, "sdpa"),
        ("qwen2", False, False, "eager"),
    ],
)
def test_fused_layers_compute_the_same(
    tiny: Backbone, kind: str, recompute: bool, prompt_first: bool, attention: str, monkeypatch: pytest.MonkeyPatch
):
    in_their_place(monkeypatch)
    settings = PassSettings(SHORTER, recompute=recompute)
    backbone = Backbone("small", made(kind, attention), tiny.tokenizer, "random", settings)
    assert backbone.passes.uses == SHORTER
    assert_alike(*model_of(backbone, DATASETS["synthetic-msa"], prompt_first), SHORTER, SHORTER[:1])


def test_a_layer_has_four_launches_between_its_products(monkeypatch: pytest.MonkeyPatch):
    in_their_place(monkeypatch)
    model = made("llama").requires_grad_(False)
    switch = choose.put_over(choose._fused(model), on=True)
    LAUNCHED.clear()
    model(inputs_embeds=torch.randn(2, 5, 64))
    assert LAUNCHED == ["Norm", "Rotary", "AddNorm", "Gated"] * 3
    switch.on = False
    model(inputs_embeds=torch.randn(2, 5, 64))
    assert len(LAUNCHED) == 12, "switched off it is transformers' own layer"


class OneLaunch(torch.autograd.Function):
    """Stands in for a kernel of so many tensors, of which it gives as many: a launch forward and one back."""

    @staticmethod
    def forward(ctx: Any, count: int, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.inputs = given
        return given[0].clone(), *(torch.empty_like(each) for each in given[1:count])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _ = grads[0].clone()
        return None, *(torch.empty_like(each) if isinstance(each, torch.Tensor) else None for each in ctx.inputs)


def test_a_layer_is_a_third_of_the_launches(monkeypatch: pytest.MonkeyPatch):
    """Counted on a CPU: of Qwen 2's layer 13 forward and 18 back, where transformers has 38 and 60."""
    in_their_place(monkeypatch)
    operators = sys.modules["msekit.backbones.gpu.operators"]
    for name, count in (("Norm", 1), ("AddNorm", 2), ("Gated", 1), ("Rotary", 2)):
        monkeypatch.setattr(operators, name, SimpleNamespace(apply=partial(_one_launch, count)))
    totals = {}
    for way in ("plain", "triton"):
        for layers in (2, 3):
            model = made("qwen2", layers=layers).requires_grad_(False)
            choose.put_over(choose._fused(model), on=way == "triton")
            x = torch.randn(2, 5, 64, requires_grad=True)
            mask = torch.zeros(2, 1, 5, 5)
            with Launches() as forward:
                loss = model(inputs_embeds=x, attention_mask=mask, use_cache=False).logits.sum()
            with Launches() as backward:
                loss.backward()
            totals[way, layers] = forward.names.total(), backward.names.total()
    plain, own = (
        [more - fewer for more, fewer in zip(totals[way, 3], totals[way, 2], strict=True)]
        for way in ("plain", "triton")
    )
    assert own[0] <= 15
    assert own[1] <= 20
    assert sum(own) < sum(plain) / 2.5


def _one_launch(count: int, *given: Any) -> Any:
    outs = OneLaunch.apply(count, *given)
    return outs if count > 1 else outs[0]


def test_it_is_taken_where_it_is_asked_for_alone(monkeypatch: pytest.MonkeyPatch):
    in_their_place(monkeypatch)
    chosen = load_backbone("tiny-llama", device="cpu").passes
    assert "triton" not in chosen.uses
    assert "not been measured on a GPU" in chosen.refused["triton"]
    assert load_backbone("tiny-llama", device="cpu", passes=("triton",)).passes.uses == ("triton",)


@pytest.mark.parametrize(
    ("kind", "passes", "why"),
    [
        ("llama", ("triton", "written-out"), "written-out layers are a CPU's"),
        ("llama", ("triton", "compiled"), "a compiled pass has kernels of its own"),
        ("qwen3", ("triton",), "Qwen3DecoderLayer is none of"),
        ("gpt2", ("triton",), "GPT2Block is none of"),
    ],
)
def test_where_it_cannot_be_it_is_refused(
    tiny: Backbone, kind: str, passes: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
):
    in_their_place(monkeypatch)
    with pytest.raises(MsekitError, match=f"'triton' through the LLM cannot be used: {why}"):
        _ = Backbone("small", made(kind), tiny.tokenizer, "random", PassSettings(passes)).passes


@pytest.mark.parametrize("why", ["its weights are sharded", "its norms are in another precision"])
def test_weights_that_the_kernels_cannot_read_are_refused(why: str, monkeypatch: pytest.MonkeyPatch):
    in_their_place(monkeypatch)
    model = made("llama").to(torch.bfloat16)
    assert obstacle(model, model.model.layers) is None
    if "sharded" in why:
        model.model.layers[1].mlp.up_proj.weight.ds_id = 3
    else:
        model.model.layers[1].input_layernorm.float()
    assert obstacle(model, model.model.layers).startswith(why)


@pytest.mark.parametrize(("installed", "why"), [(None, "not installed"), ("there", "its kernels are for a GPU")])
def test_without_triton_or_a_gpu_it_is_refused(installed: str | None, why: str, monkeypatch: pytest.MonkeyPatch):
    in_their_place(monkeypatch)
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr("msekit.backbones.gpu.fused_layers.find_spec", lambda name: installed)
    with pytest.raises(MsekitError, match=f"'triton' through the LLM cannot be used: .*{why}"):
        _ = load_backbone("tiny-llama", device="cpu", passes=("triton",)).passes


def test_the_twin_is_tried_where_the_kernels_run(monkeypatch: pytest.MonkeyPatch):
    """The LLM stays on the CPU and says that it is on a GPU; the twin is sent there."""
    in_their_place(monkeypatch)
    sent = []

    class Trial(findings.Trial):
        def __init__(self, model: Any, **given: Any) -> None:
            super().__init__(model.to("cpu"), **given)

    def twin(model: Any) -> Any:
        small = small_twin(model)
        move = small.to
        monkeypatch.setattr(small, "to", lambda device: sent.append(torch.device(device)) or move("cpu"), raising=False)
        return small

    small_twin = findings.small_twin
    monkeypatch.setattr(findings, "small_twin", twin)
    model = made("llama").requires_grad_(False)
    for ways, device in ((["prefix", "triton"], GPU), (["prefix"], None)):
        assert not findings.try_out(model, ways, choose._run_of, device).failed
    assert sent[0] == GPU
    assert sent[-1] == torch.device("cpu")
    where = []
    monkeypatch.setattr(choose, "try_out", lambda *given: where.append(given[3]) or findings.Findings())
    there = SimpleNamespace(weight=SimpleNamespace(device=GPU))
    monkeypatch.setattr(model, "get_input_embeddings", lambda: there)
    monkeypatch.setattr(choose, "Chosen", lambda *given: SimpleNamespace(drop_wrong=lambda model: {}))
    for ways in (("triton",), ("last-layer",)):
        choose.choose(model, PassSettings(ways))
    assert where == [GPU, torch.device("cpu")]
