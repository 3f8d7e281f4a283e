"""Decoder layers written out for a CPU: transformers' values and gradients, less kept, nobody else affected."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from whole_pass import model_of, outcome

from msekit.backbones.backbone import Backbone
from msekit.backbones.cpu.decoder_layers import FrozenLayers
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.agree import decoder_layers
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.model.mse_model import MSEModel

KINDS = ("tiny-llama", "qwen2", "qwen1", "mistral")


def written(model: MSEModel, batch: Batch, works: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `outcome`."""
    model.backbone.frozen_layers.works = works
    return outcome(model, batch)


@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_logits_gradients_and_scores_are_those_of_transformers(kind: str, dataset: str, name_of):
    backbone = load_backbone(name_of(kind), dtype="fp32", device="cpu")
    for prompt_first in (False, True):
        model, batch = model_of(backbone, DATASETS[dataset], prompt_first)
        backbone.shortens = backbone.frozen_layers.works = None
        with torch.no_grad():
            model(batch)
        assert backbone.frozen_layers.works
        backbone.shortens = False  # the plain side is transformers' whole layers
        for mine, plain in zip(written(model, batch, True), written(model, batch, False), strict=True):
            assert plain.abs().max() > 0
            assert (mine - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_in_bf16(name_of):
    """Both sides round, each in its own order: no further apart than either is from fp32."""
    model, batch = model_of(load_backbone("tiny-llama", dtype="bf16", device="cpu"), DATASETS["synthetic-erc"])
    exact, exact_batch = model_of(load_backbone("tiny-llama", dtype="fp32", device="cpu"), DATASETS["synthetic-erc"])
    mine, plain, wanted = written(model, batch, True), written(model, batch, False), written(exact, exact_batch, False)
    for ours, theirs, true in zip(mine, plain, wanted, strict=True):
        assert (ours - true).norm() <= 1.25 * (theirs - true).norm() + 1e-3 * true.norm()


@pytest.mark.parametrize("prompt_first", [False, True])
def test_recomputed_layers_keep_their_input_alone(prompt_first: bool, name_of):
    whole, again = (load_backbone(name_of("qwen2"), "none", "fp32", "cpu", recompute) for recompute in (False, True))
    outcomes, kept = [], []
    for backbone in (whole, again):
        model, batch = model_of(backbone, DATASETS["synthetic-erc"], prompt_first)
        outcomes.append(written(model, batch, True))
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
    model(batch)
    model.backbone.frozen_layers.works = True
    mine = bytes_kept(model, batch)
    model.backbone.frozen_layers.works = False
    assert mine < 0.9 * bytes_kept(model, batch)


def test_the_model_is_the_same_for_everyone_else(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    names, fingerprint = list(backbone.model.state_dict()), fingerprint_model(backbone.model)
    ids = torch.tensor([[1, 2, 3, 4]])
    before = backbone.model(ids).logits
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch).backward()
    assert backbone.frozen_layers.works
    assert backbone.frozen_layers.columns is None
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


def test_a_layer_that_computes_something_else_is_found_out(name_of):
    plain = load_backbone(name_of("tiny-llama"), device="cpu")
    decoder_layers(plain.model)[0].input_layernorm = Louder(decoder_layers(plain.model)[0].input_layernorm)
    backbone = Backbone("odd", plain.model, plain.tokenizer, "none")
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch).backward()
    assert backbone.frozen_layers.works is False


@pytest.mark.parametrize(("kind", "held"), [("chatglm3", "none"), ("gpt2", "none"), ("tiny-llama", "int8")])
def test_other_layers_and_other_weights_are_left_alone(kind: str, held: str, name_of):
    backbone = load_backbone(name_of(kind), held, "fp32", "cpu")
    assert backbone.frozen_layers.works is False


def test_a_model_without_marked_layers_is_left_alone():
    assert FrozenLayers(nn.Sequential(nn.Linear(4, 4)), []).works is False


@pytest.mark.parametrize("prompt_first", [False, True])
def test_a_first_pass_in_inference_mode_finds_it_out_too(prompt_first: bool, name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    model, batch = model_of(backbone, DATASETS["synthetic-erc"], prompt_first)
    with torch.inference_mode():
        model.score(batch)
    assert backbone.frozen_layers.works
    assert all(True not in getattr(each, "_copies", {}) for each in backbone.frozen_layers._products)
    model(batch).backward()


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


def test_it_is_found_out_after_a_compiled_pass_too(name_of, monkeypatch: pytest.MonkeyPatch):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    monkeypatch.setattr(backbone, "compiled", backbone._logits)
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch)
    assert backbone.frozen_layers.works is None
    monkeypatch.setattr(backbone, "compiled", None)
    model(batch)
    assert backbone.frozen_layers.works
