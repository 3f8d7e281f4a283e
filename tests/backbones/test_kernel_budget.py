"""Launches per layer and step, counted on a CPU: they bound a step on a GPU, and must not grow unnoticed.

What is counted are operators that compute; views launch nothing. A norm counts as it is written out here; a GPU's fused
one is fewer.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from launches import Launches
from torch import nn
from whole_pass import model_of

from msekit.backbones.backbone import Backbone
from msekit.backbones.passes.choose import PassSettings
from msekit.data.catalogue import DATASETS
from msekit.settings.config import OptimConfig
from msekit.training.engine import PlainEngine

WAYS = ("prefix", "last-layer", "lean-parts")
FEW, MANY = 3, 5
"""Layers of the two LLMs whose difference is what a layer costs."""


def llm(layers: int, tiny: Backbone, passes: str | tuple[str, ...]) -> Backbone:
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": layers}
    config = transformers.AutoConfig.for_model("qwen2", **sizes, num_attention_heads=4, num_key_value_heads=4)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    backbone = Backbone("small", model, tiny.tokenizer, "random", PassSettings(passes))
    backbone.on_gpu = True
    return backbone


def launches(backbone: Backbone) -> dict[str, int]:
    """Of the forward pass, the backward pass, and the optimiser's step."""
    model, batch = model_of(backbone, DATASETS["synthetic-msa"])
    engine = PlainEngine(model, SimpleNamespace(num_processes=1, prepare=lambda module: module), OptimConfig())
    model(batch).backward()
    engine.step(1e-3)  # constants, the prefix and the moments are made
    counts = {}
    with Launches() as forward:
        loss = model(batch)
    with Launches() as backward:
        loss.backward()
    with Launches() as step:
        engine.step(1e-3)
    for name, mode in (("forward", forward), ("backward", backward), ("optimiser", step)):
        counts[name] = mode.names.total()
    return counts


BUDGET = {
    WAYS: {"forward": 42, "backward": 58},
    "plain": {"forward": 40, "backward": 62},
}
"""Of a layer of Qwen's kind: two more than torch 2.13 launches."""
BESIDE = {"forward": 150, "backward": 95, "optimiser": 18}
"""Of a step, whatever the layers: the adapter, the layout, the mask, the head and the loss."""


@pytest.mark.parametrize("passes", [WAYS, "plain"], ids=["shorter ways", "plain"])
def test_launches_stay_within_the_budget(tiny: Backbone, passes: str | tuple[str, ...]):
    few, many = (launches(llm(layers, tiny, passes)) for layers in (FEW, MANY))
    layer = {part: (many[part] - few[part]) / (MANY - FEW) for part in ("forward", "backward")}
    assert all(0 < layer[part] <= BUDGET[passes][part] for part in layer), layer
    beside = {part: few[part] - FEW * layer.get(part, 0) for part in few}
    assert all(0 < beside[part] <= BESIDE[part] for part in beside), beside


def test_what_is_launched_more_is_seen(tiny: Backbone):
    backbone = llm(2, tiny, "plain")
    before = launches(backbone)
    backbone.model.model.layers[0].mlp.register_forward_hook(lambda *args: args[2] + 0)
    assert launches(backbone)["forward"] == before["forward"] + 1


def test_views_launch_nothing():
    with Launches() as launched:
        nn.Linear(2, 3)(torch.zeros(4, 2)).view(2, 6).transpose(0, 1)[1:].expand(3, 5, 2)
    assert set(launched.names) <= {"zeros", "fill_", "uniform_", "t", "addmm"}
    assert launched.names["addmm"] == 1
