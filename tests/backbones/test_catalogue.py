"""The catalogue's figures: parameter counts as published, and as a loaded checkpoint has them."""

from __future__ import annotations

import pytest

from msekit.backbones.catalogue import BACKBONES, check_architecture
from msekit.errors import MsekitError


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen-1.8b", 1_836_828_672),
        ("qwen-7b", 7_721_324_544),
        ("qwen-14b", 14_167_290_880),
        ("chatglm3-6b", 6_243_584_000),
        ("llama2-7b", 6_738_415_616),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_the_figures_give_the_published_parameter_counts(name, parameters):
    assert BACKBONES[name].architecture.parameters == parameters


def test_the_tiny_backbone_has_its_entrys_parameters(tiny):
    entry = BACKBONES["tiny-llama"]
    assert sum(parameter.numel() for parameter in tiny.model.parameters()) == entry.architecture.parameters


def test_another_model_under_a_catalogue_name_is_refused():
    from transformers import PreTrainedConfig

    config = PreTrainedConfig()
    config.hidden_size, config.num_hidden_layers = 2048, 23
    with pytest.raises(MsekitError, match="num_hidden_layers 23; published is 24"):
        check_architecture("Qwen/Qwen-1_8B", config)
    config.num_hidden_layers = 24
    check_architecture("qwen-1.8b", config)
    check_architecture("somewhere/else", config)
