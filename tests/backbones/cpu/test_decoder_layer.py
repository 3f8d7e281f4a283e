"""Decoder layers written out for a CPU: transformers' values and gradients, less kept, nobody else affected."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from whole_pass import assert_alike, model_of, outcome_by

from msekit.backbones.backbone import Backbone
from msekit.backbones.cpu import decoder_layer, packed_products
from msekit.backbones.cpu.packed_products import PackedProduct
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.holding import LAID_OUT_ON
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.agree import decoder_layers
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.mse_model import MSEModel

KINDS = ("tiny-llama", "qwen2", "qwen1", "mistral")


WRITTEN, PLAIN = ("prefix", "lean-parts", "written-out"), ("prefix",)


@pytest.fixture(params=[LAID_OUT_ON, "GenuineIntel"])
def vendor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU for which weights are laid out, and on one for which they are not."""
    monkeypatch.setattr(packed_products, "cpu_vendor", lambda: request.param)


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_logits_gradients_and_scores_are_those_of_transformers(kind: str, dataset: str, name_of):
    backbone = load_backbone(name_of(kind), dtype="fp32", device="cpu")
    for prompt_first in (False, True):
        model, batch = model_of(backbone, DATASETS[dataset], prompt_first)
        assert_alike(model, batch, WRITTEN, PLAIN)


def test_in_bf16(name_of):
    """Both sides round, each in its own order: no further apart than either is from fp32."""
    model, batch = model_of(load_backbone("tiny-llama", dtype="bf16", device="cpu"), DATASETS["synthetic-erc"])
    exact, exact_batch = model_of(load_backbone("tiny-llama", dtype="fp32", device="cpu"), DATASETS["synthetic-erc"])
    mine, plain, wanted = (
        outcome_by(WRITTEN, model, batch),
        outcome_by(PLAIN, model, batch),
        outcome_by(PLAIN, exact, exact_batch),
    )
    for ours, theirs, true in zip(mine, plain, wanted, strict=True):
        assert (ours - true).norm() <= 1.25 * (theirs - true).norm() + 1e-3 * true.norm()


@pytest.mark.parametrize("prompt_first", [False, True])
def test_recomputed_layers_keep_their_input_alone(prompt_first: bool, name_of):
    whole, again = (load_backbone(name_of("qwen2"), "none", "fp32", "cpu", recompute) for recompute in (False, True))
    outcomes, kept = [], []
    for backbone in (whole, again):
        model, batch = model_of(backbone, DATASETS["synthetic-erc"], prompt_first)
        outcomes.append(outcome_by(WRITTEN, model, batch))
        kept.append(bytes_kept(model, batch))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    assert kept[1] < 0.6 * kept[0]


def bytes_kept(model: MSEModel, batch: Batch) -> int:
    """For the backward pass, weights not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.backbone.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (address := tensor.untyped_storage().data_ptr()) not in weights:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_less_is_kept_than_by_transformers_layers(name_of):
    model, batch = model_of(load_backbone("tiny-llama", device="cpu"), DATASETS["synthetic-erc"])
    model(batch)  # which reads the prefix
    mine = bytes_kept(model, batch)
    with model.backbone.passes.limited(("prefix", "last-layer", "lean-parts")):
        assert mine < 0.9 * bytes_kept(model, batch)


def test_the_model_is_the_same_for_everyone_else(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    names, fingerprint = list(backbone.model.state_dict()), fingerprint_model(backbone.model)
    ids = torch.tensor([[1, 2, 3, 4]])
    before = backbone.model(ids).logits
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch).backward()
    assert backbone.passes.uses == WRITTEN
    assert torch.equal(backbone.model(ids).logits, before)
    assert list(backbone.model.state_dict()) == names
    assert fingerprint_model(backbone.model) == fingerprint


class Louder(nn.Module):
    """A norm that is not the one of its layer's kind."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_layer_with_another_part_is_left_alone(name_of, caplog: pytest.LogCaptureFixture):
    plain = load_backbone(name_of("tiny-llama"), device="cpu")
    decoder_layers(plain.model)[0].input_layernorm = Louder(decoder_layers(plain.model)[0].input_layernorm)
    backbone = Backbone("odd", plain.model, plain.tokenizer, "none")
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch).backward()
    model(batch).backward()
    assert "input_layernorm" in backbone.passes.refused["written-out"]
    assert len([line for line in caplog.messages if "written-out" in line]) == 1


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("share", [0.5, 1.001])
def test_a_gradient_that_is_wrong_is_refused_in_any_precision(
    share: float, dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    right = decoder_layer.run_back
    monkeypatch.setattr(decoder_layer, "run_back", lambda *given: share * right(*given))
    backbone = load_backbone("tiny-llama", dtype=dtype, device="cpu")
    assert "its gradient came out otherwise" in backbone.passes.refused["written-out"]
    assert backbone.passes.uses == ("prefix", "last-layer", "lean-parts")
    assert len([line for line in caplog.messages if "'written-out'" in line]) == len(caplog.messages) == 1
    with pytest.raises(MsekitError, match=r"'written-out' through the LLM cannot be used: .* its gradient"):
        load_backbone("tiny-llama", dtype=dtype, device="cpu", passes=("written-out",))


@pytest.mark.parametrize(("kind", "held"), [("chatglm3", "none"), ("gpt2", "none"), ("tiny-llama", "int8")])
def test_other_layers_and_other_weights_are_left_alone(kind: str, held: str, name_of, caplog: pytest.LogCaptureFixture):
    backbone = load_backbone(name_of(kind), held, "fp32", "cpu")
    assert "written-out" not in backbone.passes.uses
    assert backbone.passes.refused["written-out"]
    assert not caplog.messages, "nobody expected them to be written out"


def test_layers_of_another_transformers_are_left_alone(monkeypatch: pytest.MonkeyPatch, name_of):
    forward = LlamaDecoderLayer.forward

    def newer(self, hidden_states, surprise=None, **kwargs):
        return forward(self, hidden_states, **kwargs)

    monkeypatch.setattr(LlamaDecoderLayer, "forward", newer)
    backbone = load_backbone("tiny-llama", device="cpu")
    assert "surprise" in backbone.passes.refused["written-out"]


def test_weights_that_cannot_be_laid_out_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_products, "cpu_vendor", lambda: LAID_OUT_ON)
    monkeypatch.setattr(packed_products, "PACKED_MOST", 1000)
    backbone = load_backbone("tiny-llama", device="cpu")
    assert "written-out" in backbone.passes.uses
    assert "GiB" in backbone.passes.refused["written-out with weights laid out"]


@pytest.mark.parametrize("prompt_first", [False, True])
def test_a_first_pass_may_be_in_inference_mode(prompt_first: bool, name_of, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_products, "cpu_vendor", lambda: LAID_OUT_ON)
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    model, batch = model_of(backbone, DATASETS["synthetic-erc"], prompt_first)
    made, copy_of = [], PackedProduct._copy
    assert backbone.passes
    monkeypatch.setattr(PackedProduct, "_copy", lambda self, back: made.append(back) or copy_of(self, back))
    with torch.inference_mode():
        model.score(batch)
    assert backbone.passes.uses == WRITTEN
    assert made
    assert not any(made), "no copy for a gradient that nobody asks for"
    model(batch).backward()
    assert any(made)


@pytest.mark.usefixtures("vendor")
def test_a_used_model_can_be_copied_and_its_layers_called_by_name(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch)
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(copy.deepcopy(backbone.model)(ids).logits, backbone.model(ids).logits)
    x = backbone.embed(ids)
    where = backbone.model.model.rotary_emb(x, torch.arange(4)[None])
    layer = decoder_layers(backbone.model)[0]
    by_name = layer(hidden_states=x, attention_mask=None, position_embeddings=where)
    assert torch.equal(by_name, layer(x, attention_mask=None, position_embeddings=where))
