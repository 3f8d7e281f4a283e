"""Integer products (w8a8) beside fp32 ones: single layers, whole steps, and what must not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_quantise import load, name_of, take_step

from msekit.backbones import integer
from msekit.backbones.integer import Inputs, IntegerLinear, Steps, best_steps, exactly
from msekit.backbones.kinds import check_kind
from msekit.backbones.quantise import quantised_layers
from msekit.errors import MsekitError

PLAIN = Steps(lambda step: step)


@pytest.fixture
def as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a C++ compiler: the steps are not fused."""
    monkeypatch.setattr(integer, "best_steps", lambda: PLAIN)


class Held:
    """A linear layer as bitsandbytes holds it."""

    def __init__(self, features: int, out: int) -> None:
        self.weight = torch.nn.Parameter(torch.randint(-127, 128, (out, features), dtype=torch.int8), False)
        self.weight.SCB = torch.rand(out) + 0.5
        self.bias = torch.randn(out)
        self.full = self.weight.float() * self.weight.SCB[:, None] / 127

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.full, self.bias)


def inputs_like_an_llms(rows: int, features: int, heavy: bool = False) -> torch.Tensor:
    """Rows of unlike size, with a few features that are fifty times as large; `heavy`: others in every row."""
    x = torch.randn(rows, features) * torch.rand(rows, 1).add(0.1)
    if heavy:
        return torch.where(torch.rand(rows, features) < 0.01, 20 * x, x)
    x[:, ::40] *= 50
    return x


@pytest.mark.parametrize("heavy", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(("features", "out"), [(600, 96), (640, 700)])
def test_products_and_gradients_are_those_of_the_rounded_weights(features: int, out: int, heavy: bool, as_written):
    torch.manual_seed(0)
    held = Held(features, out)
    inputs = Inputs(inputs_like_an_llms(60, features, heavy), PLAIN)
    assert inputs.twice == heavy
    layer = IntegerLinear(held, inputs)
    x = inputs_like_an_llms(24, features, heavy).view(4, 6, features).requires_grad_()
    direction = torch.randn(4, 6, out)
    y = layer(x)
    (y * direction).sum().backward()
    exact = held.forward(x.detach())
    assert (y - exact).norm() / (exact - held.bias).norm() < 0.01
    wanted = direction @ held.full
    assert (x.grad - wanted).norm() / wanted.norm() < 0.015


def test_the_second_integer_and_the_outliers_are_what_keeps_it_small(as_written):
    torch.manual_seed(0)
    x = inputs_like_an_llms(64, 320, heavy=True)
    inputs = Inputs(x, PLAIN)
    everything = torch.ones_like(inputs.kept_K)

    def lost(whole: torch.Tensor, unit: torch.Tensor, kept: torch.Tensor) -> float:
        first, second = whole[: len(unit)].float(), whole[len(unit) :].float()
        total = first + second / 254 if len(second) else first
        return float((total * unit - x * kept).norm(dim=1).div(x.norm(dim=1)).mean())

    alone = lost(*integer._round(x, everything), everything)
    beside = lost(*integer._round(x, inputs.kept_K), inputs.kept_K)
    twice = lost(*integer._round_twice(x, inputs.kept_K), inputs.kept_K)
    assert twice < beside / 100 < alone / 100


@pytest.mark.slow
def test_fused_steps_are_the_written_ones():
    best_steps.cache_clear()
    fused, x, kept = best_steps(), inputs_like_an_llms(33, 70), torch.ones(70).index_fill_(0, torch.tensor([3]), 0)
    for mine, plain in ((fused.round, integer._round), (fused.round_twice, integer._round_twice)):
        whole, unit = mine(x, kept)
        wanted, wanted_unit = plain(x, kept)
        assert (whole.int() - wanted.int()).abs().max() <= 1, "halves may go either way"
        assert (whole != wanted).float().mean() < 0.01
        assert torch.allclose(unit, wanted_unit)
    sums, outliers, scale = torch.randint(-9999, 9999, (66, 20), dtype=torch.int32), torch.randn(33, 20), torch.rand(20)
    once = (sums[:33], unit, outliers, scale)
    assert torch.allclose(fused.finish(*once), integer._finish(*once), rtol=1e-4, atol=1e-4)
    twice = (sums, *once[1:])
    assert torch.allclose(fused.finish_twice(*twice), integer._finish_twice(*twice), rtol=1e-4, atol=1e-4)
    assert torch.allclose(fused.finish_back(sums[:33], unit), integer._finish_back(sums[:33], unit))


def test_without_a_compiler_the_steps_are_as_written(monkeypatch: pytest.MonkeyPatch):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", no_compiler)
    best_steps.cache_clear()
    assert best_steps().round is integer._round
    best_steps.cache_clear()


def test_rows_of_nothing_stay_nothing(as_written):
    whole, unit = integer._round(torch.zeros(3, 8), torch.ones(8))
    assert not whole.any()
    assert unit.isfinite().all()


def test_a_row_does_not_depend_on_the_others(as_written):
    torch.manual_seed(0)
    held, seen = Held(128, 64), inputs_like_an_llms(32, 128)
    layer = IntegerLinear(held, Inputs(seen, PLAIN))
    x = inputs_like_an_llms(20, 128)
    whole = layer(x)
    assert torch.equal(torch.cat([layer(x[:7].clone()), layer(x[7:].clone())]), whole)


def test_layers_with_one_input_round_it_once(as_written):
    backbone = load("tiny-llama", "w8a8")
    layers = dict(quantised_layers(backbone.model))
    of = {name: layer.forward.inputs for name, layer in layers.items() if isinstance(layer.forward, IntegerLinear)}
    first = "model.layers.0."
    assert of[first + "self_attn.k_proj"] is of[first + "self_attn.v_proj"]
    assert of[first + "mlp.gate_proj"] is of[first + "mlp.up_proj"]
    # the last layer's attention output is cut to the columns that are read: its forward is wrapped, and not in `of`
    assert len(set(map(id, of.values()))) == len(backbone.inputs) - 1


@pytest.mark.parametrize("kind", ["tiny-llama", "qwen1-tiny", "chatglm3-tiny"])
def test_a_training_step(kind: str, as_written, request: pytest.FixtureRequest):
    name = name_of(kind, request)
    compare(take_step(load(name, "w8a8")), take_step(load(name, "int8")), 0.98, 0.15)


@pytest.mark.slow
def test_a_training_step_on_the_real_small_llm(monkeypatch: pytest.MonkeyPatch):
    """With the steps fused, where there is a compiler."""
    user_cache = Path.home() / ".cache" / "msekit"
    if not (user_cache / "backbones" / "smollm2-135m-1").is_dir():
        pytest.skip("smollm2-135m is not in the user's cache; `make train` fetches it")
    monkeypatch.setenv("MSEKIT_CACHE", str(user_cache))
    backbone = load("smollm2-135m", "w8a8")
    twice = [inputs.twice for inputs in backbone.inputs]
    assert 20 <= sum(twice) <= 40, "the last projections of its 30 MLPs"
    compare(take_step(backbone), take_step(load("smollm2-135m", "none")), 0.95, 0.2)


def compare(step, reference, least_cosine: float, furthest_score: float) -> None:
    assert len(step.fingerprints) == 1, "the backbone changed"
    assert torch.equal(step.scores_before, step.scores), "a training step changed what is scored"
    assert float(torch.nn.functional.cosine_similarity(step.gradient, reference.gradient, dim=0)) >= least_cosine
    assert float((step.scores - reference.scores).abs().max()) <= furthest_score


def test_within_exactly_nothing_is_rounded_also_when_nested(as_written):
    backbone, plain = load("tiny-llama", "w8a8"), load("tiny-llama", "int8")
    ids = torch.tensor([backbone.encode("Yes, of course!")])
    with torch.no_grad(), exactly(backbone.inputs):
        with exactly(backbone.inputs):
            pass
        assert torch.equal(backbone.model(ids).logits, plain.model(ids).logits)
    with torch.no_grad():
        assert not torch.equal(backbone.model(ids).logits, plain.model(ids).logits)


def test_it_is_for_cpus():
    check_kind("w8a8", "cpu")
    with pytest.raises(MsekitError, match="not on cuda") as error:
        check_kind("w8a8", "cuda")
    assert "int8" in str(error.value.fix)
