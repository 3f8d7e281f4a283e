"""The last layer at the columns that are read: what is computed from them is what the whole layer gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from whole_pass import model_of, outcome

from msekit.backbones.backbone import Backbone
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.last_layer import LastLayer
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.model.mse_model import MSEModel

pytestmark = pytest.mark.usefixtures("transformers_layers")
KINDS = ("tiny-llama", "qwen2", "qwen1", "chatglm3", "gpt2", "mixtral")


def shortened(model: MSEModel, batch: Batch, shorten: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `outcome`."""
    model.backbone.shortens = shorten
    return outcome(model, batch)


def columns_of(layer: nn.Module) -> list[int]:
    """Fills with how many columns each call of the layer's down projection sees."""
    seen: list[int] = []
    down = next(module for name, module in layer.named_modules() if name in ("mlp.down_proj", "mlp.c_proj"))
    down.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0].shape[1]))
    return seen


@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_logits_gradients_and_scores_are_those_of_the_whole_layer(kind: str, dataset: str, name_of):
    backbone = load_backbone(name_of(kind), dtype="fp32", device="cpu")
    for prompt_first in (False, True):
        model, batch = model_of(backbone, DATASETS[dataset], prompt_first)
        backbone.shortens = None
        with torch.no_grad():
            model(batch)
        assert backbone.shortens, "the architecture takes it"
        for mine, plain in zip(shortened(model, batch, True), shortened(model, batch, False), strict=True):
            assert plain.abs().max() > 0
            assert (mine - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("kind", ["tiny-llama", "chatglm3"])
@pytest.mark.parametrize(("held", "checkpointing"), [("none", True), ("int8", False), ("nf4", False), ("nf4", True)])
def test_with_recomputed_and_quantised_layers(kind: str, held: str, checkpointing: bool, name_of):
    backbone = load_backbone(name_of(kind), held, "fp32", "cpu", checkpointing)
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    for mine, plain in zip(shortened(model, batch, True), shortened(model, batch, False), strict=True):
        assert (mine - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_only_the_columns_that_are_read_are_computed(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    first, last = (columns_of(layer) for layer in (decoder_layers(backbone.model)[i] for i in (0, -1)))
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    answers = model.for_training(batch).answers
    first.clear()
    last.clear()
    model(batch)
    assert last[-1] == answers < first[-1]
    model.score(batch)
    assert last[-1] == len(model.labels.trie.inner) < first[-1]


def test_the_model_is_the_same_for_everyone_else(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    names, fingerprint = list(backbone.model.state_dict()), fingerprint_model(backbone.model)
    ids = torch.tensor([[1, 2, 3, 4]])
    before = backbone.model(ids).logits
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    model(batch).backward()
    assert torch.equal(backbone.model(ids).logits, before)
    assert list(backbone.model.state_dict()) == names
    assert fingerprint_model(backbone.model) == fingerprint


class Mixing(nn.Module):
    """An MLP whose columns see one another: it may not be given fewer of them."""

    def forward(self, hidden_BSd: Tensor) -> Tensor:
        return hidden_BSd + hidden_BSd.mean(dim=1, keepdim=True)


class Pair(nn.Module):
    """An MLP that returns more than its output."""

    def forward(self, hidden_BSd: Tensor) -> tuple[Tensor, None]:
        return hidden_BSd, None


@pytest.mark.parametrize("mlp", [Mixing, Pair])
def test_an_architecture_that_cannot_be_shortened_is_computed_as_it_is(mlp: type[nn.Module], name_of):
    plain = load_backbone(name_of("tiny-llama"), device="cpu")
    model = plain.model
    decoder_layers(model)[-1].mlp = mlp()
    if mlp is Pair:
        layer = decoder_layers(model)[-1]
        layer.forward = lambda hidden, **kwargs: layer.mlp(hidden)[0]
    backbone = Backbone("odd", model, plain.tokenizer, "none")
    whole, batch = model_of(backbone, DATASETS["synthetic-erc"])
    whole(batch).backward()
    assert backbone.shortens is False
    assert backbone.last_layer.columns is None


def test_a_model_without_marked_layers_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4))
    last = LastLayer(model)
    with last.shortened(1):
        assert model(torch.ones(1, 3, 4)).shape == (1, 3, 4)
    assert decoder_layers(model) == []
    assert last.works(lambda: torch.tensor([1.0, 2.0]), 1)
