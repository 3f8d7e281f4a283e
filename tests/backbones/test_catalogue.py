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
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-0.6b", 596_049_920),
        ("llama3.2-1b", 1_235_814_400),
        ("llama3.2-3b", 3_212_749_824),
        ("gemma3-270m", 268_098_176),
        ("gemma3-1b", 999_885_952),
        ("smollm2-1.7b", 1_711_376_384),
        ("smollm3-3b", 3_075_098_624),
    ],
)
def test_the_figures_give_the_published_parameter_counts(name, parameters):
    assert BACKBONES[name].architecture.parameters == parameters


KINDS = {"qwen2.5": "qwen2", "qwen3": "qwen3", "llama": "llama", "gemma3": "gemma3_text", "smollm3": "smollm3"}
"""How an entry's name begins → transformers' type of it; the rest is of Llama's kind."""


@pytest.mark.parametrize("name", [name for name, entry in BACKBONES.items() if entry.hub and "qwen-" not in name])
def test_transformers_builds_an_entry_with_as_many_parameters(name: str):
    """Without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if name == "chatglm3-6b":
        pytest.skip("published in a form of its own; the count is above")
    figures = BACKBONES[name].architecture
    kind = next((kind for beginning, kind in KINDS.items() if name.startswith(beginning)), "llama")
    config = AutoConfig.for_model(
        kind,
        hidden_size=figures.hidden_size,
        num_hidden_layers=figures.layers,
        num_attention_heads=figures.heads,
        num_key_value_heads=figures.kv_heads,
        head_dim=figures.head_dim,
        intermediate_size=figures.intermediate_size,
        vocab_size=figures.vocab_size,
        max_position_embeddings=figures.trained_length,
        tie_word_embeddings=figures.tied,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == figures.parameters
    check_architecture(name, config)


def test_gated_ones_are_said_to_be():
    gated = {name for name, entry in BACKBONES.items() if entry.gated}
    assert gated == {"llama2-7b", "llama3.2-1b", "llama3.2-3b", "gemma3-270m", "gemma3-1b"}


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
