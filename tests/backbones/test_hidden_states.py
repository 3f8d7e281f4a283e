"""Hidden states: transformers' own, whatever is read together with a text and however the LLM is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import (
    ROWS,
    TOKENS,
    StatesWanted,
    batches_by_length,
    depth,
    precision_of,
    read_states,
    states_there,
    token_states,
)
from msekit.backbones.load import load_backbone
from msekit.errors import MsekitError

TEXTS = ("I did not expect to see you here.", "", "Well.", "And then she just said yes, and nobody knew why.")
CONTEXTS = [10, 0, 0, 5]
CUE = " Emotion:"


def texts_of(backbone: Backbone) -> list[list[int]]:
    return [backbone.encode(text) for text in TEXTS]


def contexts_of(texts: list[list[int]]) -> list[int]:
    return [min(context, len(text) // 2) for context, text in zip(CONTEXTS, texts, strict=True)]


def wanted_of(backbone: Backbone, cue: str = CUE) -> StatesWanted:
    return StatesWanted(tuple(range(depth(backbone) + 1)), tuple(backbone.encode(cue)))


@torch.no_grad()
def by_transformers(backbone: Backbone, text: list[int], wanted: StatesWanted) -> list[torch.Tensor]:
    """transformers' hidden states (S, d) of a text read alone, without the last layer's, which it norms."""
    ids = torch.tensor([[*backbone.bos, *text, *wanted.cue]])
    out = backbone.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    return [states[0] for states in out.hidden_states[:-1]]


@pytest.mark.parametrize("kind", ["tiny-llama", "qwen1", "chatglm3", "gpt2", "gemma2", "qwen3", "mistral"])
def test_they_are_those_of_transformers(kind: str, name_of: Callable[[str], str]) -> None:
    backbone = load_backbone(name_of(kind), device="cpu")
    texts, wanted = texts_of(backbone), wanted_of(backbone)
    contexts = contexts_of(texts)
    states = read_states(backbone, texts, contexts, wanted)
    assert states.shape == (len(TEXTS), depth(backbone) + 1, 2, backbone.text_dim)
    assert states.dtype == torch.float32
    opening = len(backbone.bos)
    for text, context, state in zip(texts, contexts, states, strict=True):
        for layer, whole_Sd in enumerate(by_transformers(backbone, text, wanted)):
            torch.testing.assert_close(state[layer, 0], whole_Sd[-1], rtol=1e-4, atol=1e-4)
            mean = whole_Sd[opening + context :].mean(dim=0)
            torch.testing.assert_close(state[layer, 1], mean, rtol=1e-4, atol=1e-4)


def test_the_last_layer_comes_before_the_final_norm(tiny: Backbone) -> None:
    wanted = StatesWanted((depth(tiny),), tuple(tiny.encode(CUE)))
    (text, *_) = texts_of(tiny)
    state_d = read_states(tiny, [text], None, wanted)[0, 0, 0]
    ids = torch.tensor([[*tiny.bos, *text, *wanted.cue]])
    with torch.no_grad():
        normed = tiny.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(tiny.model.model.norm(state_d), normed)


@pytest.mark.parametrize(
    ("dtype", "quantization", "apart"),
    [("fp32", "none", 1e-5), ("bf16", "none", 2e-2), ("fp32", "int8", 1e-5), ("fp32", "nf4", 1e-5)],
)
def test_a_text_does_not_depend_on_what_it_is_read_with(dtype: str, quantization: str, apart: float) -> None:
    backbone = load_backbone("tiny-llama", quantization, dtype, "cpu")
    texts, wanted = texts_of(backbone), wanted_of(backbone)
    contexts = contexts_of(texts)
    together = read_states(backbone, texts, contexts, wanted)
    for text, context, state in zip(texts, contexts, together, strict=True):
        (alone,) = read_states(backbone, [text], [context], wanted)
        assert (alone - state).abs().max() <= apart * state.abs().max()
    exact = read_states(load_backbone("tiny-llama", device="cpu"), texts, contexts, wanted)
    differs = (together - exact).abs().max() / exact.abs().max()
    assert differs < 0.5 and (differs > 1e-4) == (precision_of(backbone) != "torch.float32")  # noqa: PT018


def test_tokens_have_the_mean_that_a_text_has(tiny: Backbone) -> None:
    texts, wanted = texts_of(tiny), StatesWanted((2, 1))
    contexts = contexts_of(texts)
    states, tokens = read_states(tiny, texts, contexts, wanted), token_states(tiny, texts, contexts, wanted)
    for text, context, state, own_TLd in zip(texts, contexts, states, tokens, strict=True):
        assert own_TLd.shape == (len(text) - context, 2, tiny.text_dim)
        if text:
            torch.testing.assert_close(own_TLd.mean(dim=0), state[:, 1])
    torch.testing.assert_close(tokens[0][-1], states[0, :, 0])


@pytest.mark.parametrize("settings", [{"passes": "plain"}, {"checkpointing": True}, {"passes": "last-layer"}, {}])
def test_shorter_ways_change_nothing(settings: dict[str, Any], tiny: Backbone) -> None:
    texts, wanted = texts_of(tiny), wanted_of(tiny)
    backbone = load_backbone("tiny-llama", device="cpu", **settings)
    before = read_states(backbone, texts, None, wanted)
    assert backbone.passes.run is not None
    after = read_states(backbone, texts, None, wanted)
    for states in (before, after):
        torch.testing.assert_close(states, read_states(tiny, texts, None, wanted), rtol=1e-5, atol=1e-5)


def test_the_pass_ends_at_the_highest_layer_and_leaves_nothing_behind(tiny: Backbone) -> None:
    calls: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, layer in enumerate(tiny.model.model.layers)
    ]
    before = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in tiny.model.modules()]
    try:
        states = read_states(tiny, texts_of(tiny), None, StatesWanted((0, 1)))
    finally:
        after = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in tiny.model.modules()]
        for hook in hooks:
            hook.remove()
    assert calls == [0]
    assert before == after
    assert states.grad_fn is None


def test_batches_hold_every_text_once_and_stay_within_bounds() -> None:
    texts = [[1] * (7 * number % 300) for number in range(500)] + [[1] * 5000]
    wanted = StatesWanted((1,), (1, 2, 3))
    batches = batches_by_length(texts, wanted)
    assert sorted(place for batch in batches for place in batch) == list(range(len(texts)))
    for batch in batches:
        longest = max(len(texts[place]) for place in batch)
        assert len(batch) <= ROWS
        assert len(batch) == 1 or len(batch) * (longest + 4) <= TOKENS


def test_what_cannot_be_read_is_refused(tiny: Backbone) -> None:
    for layers in ((3,), (-1, 1)):
        with pytest.raises(MsekitError, match="hidden states 0 to 2"):
            read_states(tiny, [[5]], None, StatesWanted(layers))
    backbone = load_backbone("tiny-llama", dtype="fp16", device="cpu")
    backbone.model.model.layers[0].mlp.down_proj.weight.data.fill_(6e4)
    with pytest.raises(MsekitError, match=r"beyond the range of torch\.float16"):
        read_states(backbone, [[5, 6]], None, StatesWanted((1,)))
    assert read_states(tiny, [], None, StatesWanted((1, 2))).shape[:3] == (0, 2, 2)


@pytest.mark.parametrize("kind", ["tiny-llama", "mistral"])
def test_as_on_a_gpu_they_are_the_same_and_nothing_is_read_back(kind: str, name_of: Callable[[str], str]):
    """mistral has a window. transformers reads a mask of columns back, to see whether anything is masked."""
    backbone = load_backbone(name_of(kind), device="cpu")
    texts, wanted = texts_of(backbone), wanted_of(backbone)
    plain = read_states(backbone, texts, contexts_of(texts), wanted)
    backbone.model.set_attn_implementation("sdpa")
    backbone.on_gpu = backbone._takes_scores = True
    _ = backbone.passes
    read: list[str] = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            read.extend(["read"] * (func.overloadpacket.__name__ == "_local_scalar_dense"))
            return func(*args, **(kwargs or {}))

    with Reads():
        states = states_there(backbone, texts, contexts_of(texts), wanted)
    assert not read
    torch.testing.assert_close(states, plain, rtol=1e-5, atol=1e-5)
