"""The leaner parts of a decoder compute the same, keep less, and leave alone what is written otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import transformers
from fake_cuda import GPU, fake_gpu, put_there
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from msekit.backbones.passes import lean_mlp_norm
from msekit.backbones.passes.lean_mlp_norm import FrozenRMSNorm, GatedSiLU, find_parts, fused_norm, leaner
from msekit.backbones.passes.switch import put_over

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
NORMS, MLPS, COLUMNS = 5, 2, 2 * 5


def made(kind: str, **more: object) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **more)
    return transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()


def passed(model: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor, int]:
    """Logits, the gradient of the input and how many bytes were kept for it."""
    embedded = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(inputs_embeds=embedded).logits
    logits.float().square().sum().backward()
    assert embedded.grad is not None
    return logits.detach(), embedded.grad, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "glm", "phi3"])
def test_it_computes_the_same_and_keeps_less(kind: str, dtype: torch.dtype):
    model = made(kind).to(dtype)
    logits, gradient, kept = passed(model, dtype)
    parts, refused = find_parts(model)
    assert len(parts) == NORMS + MLPS
    assert not refused
    put_over(leaner(parts), on=True)
    lean = passed(model, dtype)
    assert torch.equal(lean[0], logits)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert torch.allclose(lean[1], gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()))
    assert kept - lean[2] >= MLPS * COLUMNS * 48 * dtype.itemsize
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gradients_are_right():
    gate, up = torch.randn(2, 3, 4, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(GatedSiLU.apply, (gate, up))
    x, weight, asked = torch.randn(3, 8).requires_grad_(), torch.rand(8), torch.randn(3, 8)
    gradients = [
        torch.autograd.grad(normed, x, asked)[0]
        for normed in (FrozenRMSNorm.apply(x, weight, 1e-5), torch.nn.functional.rms_norm(x, (8,), weight, 1e-5))
    ]
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_what_is_built_otherwise_is_left_alone():
    for model, count in ((made("llama", hidden_act="gelu"), NORMS), (made("gpt_neox"), 0)):
        parts, refused = find_parts(model)
        assert len(parts) == count
        assert not refused


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda mlp, x: 2 * mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)), "something else"),
        (lambda mlp, x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x).detach()), "another gradient"),
        (lambda mlp, x, router: mlp.down_proj(x), "cannot be tried"),
    ],
)
def test_what_has_the_parts_and_computes_something_else_is_left_alone(other, reason: str, monkeypatch):
    monkeypatch.setattr(LlamaMLP, "forward", other)
    parts, refused = find_parts(made("llama"))
    assert len(parts) == NORMS
    assert reason in refused["LlamaMLP"]


def test_a_norm_that_rounds_in_another_order_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    """In fp32 it is the same: bf16 tells them apart."""

    def forward(norm: nn.Module, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        return (norm.weight.float() * (wide * scale)).to(x.dtype)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    parts, refused = find_parts(made("llama"))
    assert len(parts) == MLPS
    assert "bfloat16" in refused["LlamaRMSNorm"]


def test_what_is_tried_is_what_a_gpu_will_run(monkeypatch: pytest.MonkeyPatch):
    norm, tried = made("llama").model.norm, []

    def kernel(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        tried.append((x.device, weight.device))
        raise RuntimeError("seen")  # gradients need a driver

    monkeypatch.setattr(lean_mlp_norm, "fused_norm", kernel)
    with fake_gpu(monkeypatch):
        parts, refused = find_parts(put_there(norm))
    assert tried == [(GPU, GPU)]
    assert not parts
    assert refused["LlamaRMSNorm"].startswith("cannot be tried (")
    assert "test_lean_mlp_norm.py" in refused["LlamaRMSNorm"], "it was the kernel that broke off"


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (fused_norm, None),
        (lambda x, weight, eps: weight * F.rms_norm(x, x.shape[-1:], eps=10 * eps), "float32"),
        (lambda x, weight, eps: F.rms_norm(x, x.shape[-1:], weight.float().to(x.dtype), eps), "bfloat16"),
        (lambda x, weight, eps: fused_norm(x, weight, eps) - (y := x * weight) + y.detach(), "another gradient"),
    ],
    ids=["torch's", "another epsilon", "rounded at another place", "not all of its gradient"],
)
def test_a_gpu_s_norm_that_is_another_is_left_alone(
    kernel: Callable[..., Tensor], reason: str | None, monkeypatch: pytest.MonkeyPatch
):
    """By torch's own reference of the kernel, with inputs that say they lie on a GPU."""
    monkeypatch.setattr(lean_mlp_norm, "fused_norm", kernel)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    parts, refused = find_parts(made("llama"))
    assert len(parts) == (MLPS if reason else NORMS + MLPS)
    assert (reason or "nothing") in refused.get("LlamaRMSNorm", "nothing")
