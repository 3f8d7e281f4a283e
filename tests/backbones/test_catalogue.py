"""The catalogue's figures: parameter counts as published, and as a loaded checkpoint has them."""

from __future__ import annotations

import pytest

from msekit.backbones.catalogue import BACKBONES


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
