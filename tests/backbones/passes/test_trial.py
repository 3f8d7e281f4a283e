"""What a trial must find: ways that are subtly wrong, in any precision, and what cannot be read at once."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from msekit.backbones.cpu import decoder_layer
from msekit.backbones.load import load_backbone
from msekit.backbones.passes import trial
from msekit.backbones.passes.agree import said
from msekit.backbones.passes.choose import Chosen, PassSettings, choose
from msekit.backbones.passes.one_by_one import by_branch
from msekit.backbones.passes.plain import plain_pass
from msekit.backbones.passes.prefix import PrefixLayer, cache_argument
from msekit.backbones.passes.trial import trial_sequences
from msekit.backbones.sequence import Sequence
from msekit.errors import MsekitError

SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)


def llama(dtype: torch.dtype, **fields: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, **fields, attn_implementation="eager")
    return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)


def chosen_of(model: Any) -> Chosen:
    return choose(model, PassSettings())


@DTYPES
def test_nothing_is_wrong_with_a_right_one(dtype: torch.dtype, caplog: pytest.LogCaptureFixture):
    chosen = chosen_of(llama(dtype))
    assert {"prefix", "lean-parts", "written-out"} <= set(chosen.uses)
    assert not caplog.messages


@DTYPES
def test_a_prefix_one_position_off_is_refused(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    right = Sequence.behind

    def shifted(self: Sequence, prefix: Any) -> Sequence:
        behind = right(self, prefix)
        return replace(behind, positions=behind.positions + 1)

    # the truth of a trial is made from the right one: `unread` takes positions as they come
    monkeypatch.setattr(trial, "unread", _with_positions_back(trial.unread))
    monkeypatch.setattr(Sequence, "behind", shifted)
    assert_refused("prefix", llama(dtype))


def _with_positions_back(make: Any) -> Any:
    def made(compute: Any, opening: Tensor) -> Any:
        run = make(compute, opening)
        return lambda sequence: run(replace(sequence, positions=sequence.positions - 1))

    return made


@DTYPES
@pytest.mark.parametrize("part", ["keys", "values"])
def test_a_prefix_with_one_layers_keys_or_values_in_another_order_is_refused(
    part: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    right = trial.read_prefix

    def permuted(model: Any, embedded_1Pd: Tensor) -> Any:
        cache = right(model, embedded_1Pd)
        setattr(cache.layers[-1], part, getattr(cache.layers[-1], part).flip(-2))
        return cache

    monkeypatch.setattr(trial, "read_prefix", permuted)
    assert_refused("prefix", llama(dtype))


@DTYPES
def test_a_prefix_whose_mask_hides_a_column_is_refused(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    from msekit.backbones.passes import plain as module

    right = module.plain_pass

    def hiding(model: Any) -> Any:
        run = right(model)

        def one_less(sequence: Sequence) -> Tensor:
            if sequence.prefix is None:
                return run(sequence)
            mask = sequence.mask.clone()
            mask[..., 0] = 0 if mask.ndim == 2 else torch.finfo(mask.dtype).min
            return run(replace(sequence, mask=mask))

        return one_less

    monkeypatch.setattr(trial, "plain_pass", hiding)
    assert_refused("prefix", llama(dtype))


@DTYPES
def test_a_written_out_layer_that_forgets_half_of_its_mlp_is_refused(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    right = decoder_layer.run

    def half(x: Tensor, layer: Any, seen: Any) -> Any:
        y, kept = right(x, layer, seen)
        return y - 0.5 * (y - x), kept

    monkeypatch.setattr(decoder_layer, "run", half)
    assert_refused("written-out", llama(dtype))


@DTYPES
@pytest.mark.parametrize("fault", ["a sibling is seen", "an ancestor is not", "a node is one further"])
def test_a_label_trie_that_is_read_wrongly_is_read_branch_by_branch(
    fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    model, right = llama(dtype), LlamaForCausalLM.forward
    least = torch.finfo(torch.float32).min

    @functools.wraps(right)
    def wrong(self: Any, *args: Any, **given: Any) -> Any:
        mask = given.get("attention_mask")
        if mask is not None and mask.ndim == 4:
            mask, positions = mask.clone(), given["position_ids"].clone()
            if fault == "a sibling is seen":
                mask[:, :, -2, -3] = 0
            elif fault == "an ancestor is not":
                mask[:, :, -1, -2] = least
            else:
                positions[:, -1] += 1
            given |= {"attention_mask": mask, "position_ids": positions}
        return right(self, *args, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", wrong)
    chosen = chosen_of(model)
    assert "otherwise" in chosen.refused["label-tree"]
    (said,) = [line for line in caplog.messages if "label" in line]
    assert said.startswith("labels are scored one at a time")
    assert "prefix" in chosen.uses, "the branches go on behind it"
    monkeypatch.undo()
    (_, tree), _ = trial_sequences(model)
    with chosen.limited(()), torch.no_grad():
        assert torch.equal(chosen.run(tree), by_branch(plain_pass(model))(tree))


def assert_refused(way: str, model: Any) -> None:
    """A warning says so, and asked for by name it is an error."""
    logger, lines = logging.getLogger("msekit"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        chosen = chosen_of(model)
    finally:
        logger.removeHandler(handler)
    assert way not in chosen.uses
    assert "otherwise" in chosen.refused[way]
    assert len([line for line in lines if f"'{way}'" in line]) == 1
    with pytest.raises(MsekitError, match=f"the way '{way}' through the LLM cannot be used: .*otherwise"):
        choose(model, PassSettings((way,)))


@DTYPES
def test_what_the_twin_does_not_show_is_found_by_the_llms_own_weights(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
):
    model = llama(dtype)
    right = model.forward

    @functools.wraps(right)
    def forgetful(**given: Any) -> Any:
        """As if this very model did not find what it had read."""
        name = cache_argument(model)
        cache = given.get(name)
        if cache is not None and not given["use_cache"]:
            given[name] = Cache(layers=[PrefixLayer(8 * layer.keys, -8 * layer.values) for layer in cache.layers])
        return right(**given)

    model.forward = forgetful
    chosen = chosen_of(model)
    assert "prefix" not in chosen.uses
    assert "of their deviation off" in chosen.refused["prefix"]
    assert [line for line in caplog.messages if "'prefix'" in line]
    assert "written-out" in chosen.uses, "which is right"
    with pytest.raises(MsekitError, match="of their deviation off"):
        choose(model, PassSettings(("prefix",)))


def test_an_llm_in_which_padding_shows_is_given_one_sample_at_a_time(caplog: pytest.LogCaptureFixture, monkeypatch):
    model, right = llama(torch.float32), LlamaForCausalLM.forward

    @functools.wraps(right)
    def deaf(self: Any, *args: Any, **given: Any) -> Any:
        """Masks of columns are not heeded."""
        mask = given.get("attention_mask")
        if mask is not None and mask.ndim == 2:
            given["attention_mask"] = torch.ones_like(mask)
        return right(self, *args, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", deaf)
    chosen = chosen_of(model)
    assert set(chosen.refused) >= {"padded-batch", "label-tree"}
    assert any(line.startswith("samples are read one at a time") for line in caplog.messages)
    (flat, _), _ = trial_sequences(model)
    with torch.no_grad():
        second = replace(flat, embeddings=flat.embeddings[1:, 1:], mask=flat.mask[1:, 1:])
        second = replace(second, positions=flat.positions[1:, 1:])
        torch.testing.assert_close(chosen.run(flat)[1:], chosen.run(second), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("held", ["int8", "nf4"])
def test_quantised_layers_are_tried_on_the_twin(held: str, monkeypatch: pytest.MonkeyPatch):
    assert "prefix" in load_backbone("tiny-llama", held, "bf16", "cpu").passes.uses
    right = trial.read_prefix

    def permuted(model: Any, embedded_1Pd: Tensor) -> Any:
        cache = right(model, embedded_1Pd)
        cache.layers[-1].keys = cache.layers[-1].keys.flip(-2)
        return cache

    monkeypatch.setattr(trial, "read_prefix", permuted)
    assert "otherwise" in load_backbone("tiny-llama", held, "bf16", "cpu").passes.refused["prefix"]


def test_why_a_trial_broke_off_is_said_in_our_words(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "msekit")
    try:
        torch.nn.functional.pad((torch.ones(1), 3), (0, 1))  # type: ignore[arg-type]
    except TypeError as error:
        why = said(error)
    assert why.startswith("the code of its architecture does not take what a trial gives it (functional.py, line ")
    assert "argument" not in why
    assert "argument" in str(caplog.records[0].exc_info)
