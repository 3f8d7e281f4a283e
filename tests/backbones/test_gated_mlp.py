"""The gated MLP keeps less for its backward pass and computes the same, bit for bit."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn

from msekit.backbones.gated_mlp import GatedSiLU, keep_less

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def made(kind: str, **more: object) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, head_dim=8, pad_token_id=0, **more)
    return transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()


def passed(model: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor, int]:
    """Logits, the gradient of the input and how many numbers were kept for it."""
    embedded = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(inputs_embeds=embedded).logits
    logits.float().square().sum().backward()
    assert embedded.grad is not None
    return logits.detach(), embedded.grad, sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "glm", "phi3"])
def test_it_computes_the_same_and_keeps_a_third_less_of_the_mlps(kind: str, dtype: torch.dtype):
    model = made(kind).to(dtype)
    logits, gradient, kept = passed(model, dtype)
    assert keep_less(model) == 2
    assert model(inputs_embeds=torch.zeros(1, 1, 16, dtype=dtype)).logits.grad_fn is None, "still frozen"
    less = passed(model, dtype)
    assert torch.equal(less[0], logits)
    assert torch.equal(less[1], gradient)
    assert kept - less[2] == 2 * 2 * 5 * 48


def test_its_gradients_are_right():
    gate, up = torch.randn(2, 3, 4, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(GatedSiLU.apply, (gate, up))


def test_what_is_written_otherwise_is_left_alone():
    assert keep_less(made("llama", hidden_act="gelu")) == 0
    assert keep_less(made("gpt_neox")) == 0
