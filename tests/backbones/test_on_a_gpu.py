"""What a GPU's kernels are given and how a backbone is loaded there, seen without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import furthest, rounding
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from whole_pass import model_of, outcome

from msekit.backbones import load
from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.holding import MULTIPLE
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.choose import PassSettings
from msekit.backbones.sequence import Sequence, join
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
    bounds = rounding(
        backbone, lambda other: outcome(MSEModel(other, model.adapter, model.layout, model.labels), batch)
    )
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


@pytest.fixture
def loads(torch_as_it_was: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What transformers is asked for; it is given it in main memory."""
    asked: list[dict[str, Any]] = []
    plainly = AutoModelForCausalLM.from_pretrained

    def here(folder: Path, **options: Any) -> Any:
        asked.append(options)
        return plainly(folder, **options | {"device_map": {"": "cpu"}})

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", here)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    return asked


@pytest.mark.parametrize(("device", "number"), [("cuda", 3), ("cuda:1", 1)])
def test_weights_go_straight_to_the_gpu(loads: list[dict[str, Any]], device: str, number: int):
    backbone = load_backbone("tiny-llama", dtype="bf16", device=device)
    assert [options["device_map"] for options in loads] == [{"": number}]
    assert backbone.model.config._attn_implementation == "sdpa"
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_in_main_memory_nothing_is_placed(loads: list[dict[str, Any]]):
    load_backbone("tiny-llama", device="cpu")
    assert loads[0]["device_map"] is None


def test_shards_are_not_placed(loads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load, "is_deepspeed_zero3_enabled", lambda: True)
    monkeypatch.setattr(LlamaForCausalLM, "to", lambda self, device: self)
    load_backbone("tiny-llama", device="cuda")
    assert loads[0]["device_map"] is None


EAGER_ALONE = {
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    "gpt_oss": {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    | {"intermediate_size": 32, "num_local_experts": 2, "num_experts_per_tok": 1},
}


@pytest.mark.parametrize("kind", EAGER_ALONE)
def test_an_architecture_without_fused_attention_is_loaded_on_a_gpu_too(
    loads: list[dict[str, Any]], kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    sizes = {"vocab_size": 259, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "hidden_size": 64}
    config = AutoConfig.for_model(kind, **sizes, **EAGER_ALONE[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in tiny_llama_folder().glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    backbone = load_backbone(str(tmp_path), device="cuda")
    assert backbone.model.config._attn_implementation == "eager"
    assert any("no fused attention" in message for message in caplog.messages)
