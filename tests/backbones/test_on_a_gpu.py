"""What a GPU's kernels are given and how a backbone is loaded there, seen without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from rounding import furthest, rounding
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from whole_pass import model_of, outcome

from msekit.backbones.backbone import Backbone
from msekit.backbones.passes.choose import PassSettings
from msekit.backbones.sequence import MULTIPLE, Sequence, join
from msekit.data.catalogue import DATASETS
from msekit.model.mse_model import MSEModel
from msekit.process import ready_for_cuda

LONGER = ("a text that is longer than any other one here", "yes", "no")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """Masks that attention was given."""
    masks: list[Tensor | None] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def spied(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options):
        if len(query) == len(LONGER):  # a batch's: neither a prefix's nor a trial's
            masks.append(attn_mask)
        return attention(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spied)
    return masks


def with_sdpa(tiny: Backbone, passes: str | tuple[str, ...]) -> Backbone:
    """A small LLM whose attention is a GPU's."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model("qwen2", **sizes, **heads, initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return Backbone("small", model, tiny.tokenizer, "random", PassSettings(passes))


@pytest.mark.parametrize("passes", ["plain", "prefix"])
@pytest.mark.parametrize("task", ["synthetic-erc", "synthetic-msa"])
def test_every_row_sees_something_and_few_sizes_come_up(tiny, passes: str, task: str, seen: list[Tensor | None]):
    backbone = with_sdpa(tiny, passes if passes == "plain" else ("prefix",))
    backbone.on_gpu = True
    for texts in (("ok", "", "no"), LONGER):
        model, batch = model_of(backbone, DATASETS[task], texts=texts)
        outcome(model, batch)
    assert seen
    for mask in seen:
        assert mask is not None
        assert mask.is_floating_point(), "a mask of bools is made anew in every layer"
        assert (mask == 0).any(dim=-1).all(), "a row sees nothing"
        assert mask.shape[-1] % MULTIPLE == 0
    own_rows = [mask.diagonal(dim1=-2, dim2=-1) for mask in seen if mask.shape[-1] == mask.shape[-2]]
    assert bool(own_rows) == (passes == "plain")
    assert all((row == 0).all() for row in own_rows), "a column does not see itself"


@pytest.mark.parametrize("prompt_first", [False, True])
@pytest.mark.parametrize("task", ["synthetic-erc", "synthetic-msa"])
def test_what_kernels_are_given_changes_nothing(tiny, task: str, prompt_first: bool):
    backbone = with_sdpa(tiny, "plain")
    model, batch = model_of(backbone, DATASETS[task], prompt_first, LONGER)
    plain = outcome(model, batch)
    bounds = rounding(backbone, lambda other: outcome(MSEModel(other, model.adapter, model.layout, model.labels), batch))
    backbone.on_gpu = True
    apart = furthest(outcome(model, batch), plain)
    assert all(mine <= bound for mine, bound in zip(apart, bounds, strict=True))


@pytest.mark.parametrize("read", [0, 3])
def test_rows_that_a_longer_batch_adds_see_themselves(read: int):
    def scores(columns: int) -> Sequence:
        positions = torch.arange(columns)[None]
        flat = Sequence(torch.randn(1, columns, 2), torch.ones(1, read + columns, dtype=torch.long), positions, 1)
        return flat.with_scores_mask()

    mask = join([scores(2).widened(2), scores(5)]).mask if not read else scores(2).widened(5).mask
    assert (mask[0, 0] == 0).any(dim=-1).all()


@pytest.fixture
def torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No allocator settings; what the process is set to is undone."""
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    cudnn, attention = torch.backends.cudnn, torch.backends.cuda.cudnn_sdp_enabled()
    before = cudnn.rnn.fp32_precision, cudnn.conv.fp32_precision
    yield
    cudnn.rnn.fp32_precision, cudnn.conv.fp32_precision = before
    torch.backends.cuda.enable_cudnn_sdp(attention)


def test_a_process_is_made_ready_for_cuda(torch_as_it_was: None):
    ready_for_cuda()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cudnn.rnn.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("name", ALLOCATOR)
def test_what_a_user_has_set_stays(torch_as_it_was: None, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "their own")
    ready_for_cuda()
    assert os.environ[name] == "their own"
    assert ("PYTORCH_ALLOC_CONF" in os.environ) == (name != "PYTORCH_CUDA_ALLOC_CONF")
