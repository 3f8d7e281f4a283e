"""The last layer at the columns that are read: what is computed from them is what the whole layer gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP
from whole_pass import assert_alike, model_of, outcome_by

from msekit.backbones.backbone import Backbone
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.load import load_backbone
from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.last_layer import obstacle
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError

WAYS = ("prefix", "last-layer", "lean-parts")
WHOLE = ("prefix", "lean-parts")
KINDS = ("tiny-llama", "qwen2", "qwen1", "chatglm3", "gpt2", "mixtral")


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
    whole, ways = (tuple(way for way in some if "lean" not in way or kind != "gpt2") for some in (WHOLE, WAYS))
    for prompt_first in (False, True):
        model, batch = model_of(backbone, DATASETS[dataset], prompt_first)
        assert_alike(model, batch, ways, whole)


@pytest.mark.parametrize("kind", ["tiny-llama", "chatglm3"])
@pytest.mark.parametrize(("held", "checkpointing"), [("none", True), ("int8", False), ("nf4", False), ("nf4", True)])
def test_with_recomputed_and_quantised_layers(kind: str, held: str, checkpointing: bool, name_of):
    backbone = load_backbone(name_of(kind), held, "fp32", "cpu", checkpointing)
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    for mine, plain in zip(outcome_by(WAYS, model, batch), outcome_by(WHOLE, model, batch), strict=True):
        assert (mine - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_only_the_columns_that_are_read_are_computed(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu", passes=WAYS)
    first, last = (columns_of(layer) for layer in (decoder_layers(backbone.model)[i] for i in (0, -1)))
    model, batch = model_of(backbone, DATASETS["synthetic-erc"])
    answers = model.for_training(batch).sequence.answers
    first.clear()
    last.clear()
    model(batch)
    assert last[-1] == answers < first[-1]
    model.score(batch)
    assert last[-1] == len(model.labels.trie.inner) < first[-1]


def test_the_model_is_the_same_for_everyone_else(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu", passes=WAYS)
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
def test_a_layer_with_another_part_is_computed_as_it_is(
    mlp: type[nn.Module], name_of, caplog: pytest.LogCaptureFixture
):
    plain = load_backbone(name_of("tiny-llama"), device="cpu")
    model = plain.model
    decoder_layers(model)[-1].mlp = mlp()
    if mlp is Pair:
        layer = decoder_layers(model)[-1]
        layer.forward = lambda hidden, **kwargs: layer.mlp(hidden)[0]
    backbone = Backbone("odd", model, plain.tokenizer, "none")
    whole, batch = model_of(backbone, DATASETS["synthetic-erc"])
    whole(batch).backward()
    assert backbone.passes.uses == ("lean-parts",)
    assert mlp.__name__ in backbone.passes.refused["last-layer"]
    assert len([line for line in caplog.messages if "last-layer" in line]) == 1


def test_an_architecture_whose_columns_see_one_another_is_found_out(monkeypatch: pytest.MonkeyPatch, name_of):
    """As if that was how transformers writes it: on the twin too."""
    plain = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: plain(self, x + x.mean(dim=1, keepdim=True)))
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    assert "otherwise" in backbone.passes.refused["last-layer"]
    with pytest.raises(MsekitError, match=r"'last-layer' through the LLM cannot be used: .* its logits"):
        load_backbone(name_of("tiny-llama"), device="cpu", passes="last-layer")


def test_a_model_without_marked_layers_has_none_to_shorten():
    model = nn.Sequential(nn.Linear(4, 4))
    assert decoder_layers(model) == []
    assert obstacle(model) == "the architecture does not mark its decoder layers"
