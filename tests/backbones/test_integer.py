"""Integer products (w8a8) beside fp32 ones: single layers, whole steps, and what must not depend on the batch."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from test_quantise import compare, load, name_of, take_step

from msekit.backbones import integer
from msekit.backbones.integer import IntegerLinear, Rounding, Steps, adds_up_exactly, best_steps, products_are_quick
from msekit.backbones.kinds import check_kind
from msekit.backbones.quantise import quantised_layers
from msekit.errors import MsekitError

PLAIN = Steps(lambda step: step)
EXACT = adds_up_exactly()
exact = pytest.mark.skipif(not EXACT, reason="integer products overflow in 16 bit on this CPU")


@pytest.fixture
def as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a C++ compiler: the steps are not fused."""
    monkeypatch.setattr(integer, "best_steps", lambda: PLAIN)


class Held:
    """A linear layer as bitsandbytes holds it."""

    def __init__(self, features: int, out: int) -> None:
        self.weight = torch.nn.Parameter(torch.randint(-127, 128, (out, features), dtype=torch.int8), False)
        self.weight.SCB = torch.rand(out) + 0.5
        self.state = SimpleNamespace(SCB=None)
        self.bias = torch.randn(out)
        self.full = self.weight.float() * self.weight.SCB[:, None] / 127

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.full, self.bias)


def inputs_like_an_llms(*shape: int) -> torch.Tensor:
    """Rows of unlike size, with a few features that are fifty times as large."""
    x = torch.randn(*shape) * torch.rand(*shape[:-1], 1).add(0.1)
    x[..., ::40] *= 50
    return x


@pytest.mark.parametrize("quick", [pytest.param(True, marks=exact), False])
@pytest.mark.parametrize(("features", "out"), [(600, 96), (64, 700)])
def test_products_and_gradients_are_those_of_the_rounded_weights(features: int, out: int, quick: bool):
    torch.manual_seed(0)
    held = Held(features, out)
    layer = IntegerLinear(held, Rounding(PLAIN, quick))
    x = inputs_like_an_llms(4, 6, features).requires_grad_()
    direction = torch.randn(4, 6, out)
    y = layer(x)
    (y * direction).sum().backward()
    exact = held.forward(x.detach())
    assert (y - exact).norm() / (exact - held.bias).norm() < 2e-4
    wanted = direction @ held.full
    assert (x.grad - wanted).norm() / wanted.norm() < 0.015


def test_the_second_integer_is_worth_eight_bits():
    torch.manual_seed(0)
    x = inputs_like_an_llms(64, 320)
    once, unit = integer._round(x, torch.ones(320))
    both, _ = integer._round_twice(x)
    one, two = once.float() * unit, (both[:64].float() + both[64:].float() / 254) * unit
    assert torch.equal(both[:64], once)
    assert (two - x).norm() < (one - x).norm() / 200
    assert ((two - x).abs() <= unit / 254 / 2 * 1.001).all()


def test_rows_of_nothing_stay_nothing():
    for whole, unit in (integer._round(torch.zeros(3, 8), torch.ones(8)), integer._round_twice(torch.zeros(3, 8))):
        assert not whole.any()
        assert unit.isfinite().all()


def test_nothing_at_all_has_a_result():
    layer = IntegerLinear(Held(128, 64), Rounding(PLAIN, EXACT))
    assert layer(torch.empty(0, 3, 128)).shape == (0, 3, 64)


@pytest.mark.slow
def test_fused_steps_are_the_written_ones():
    best_steps.cache_clear()
    fused, x, weights = best_steps(), inputs_like_an_llms(33, 70), torch.rand(70)
    pairs = [(fused.round(x, weights), integer._round(x, weights)), (fused.round_twice(x), integer._round_twice(x))]
    for (whole, unit), (wanted, wanted_unit) in pairs:
        assert (whole[:33].int() - wanted[:33].int()).abs().max() <= 1, "halves may go either way"
        assert (whole[:33] != wanted[:33]).float().mean() < 0.01
        assert torch.allclose(unit, wanted_unit)
    sums, scale = torch.randint(-9999, 9999, (66, 20), dtype=torch.int32), torch.rand(20)
    assert torch.allclose(fused.finish(sums[:33], unit), integer._finish(sums[:33], unit))
    twice, wanted = (step(sums, unit, scale) for step in (fused.finish_twice, integer._finish_twice))
    assert torch.allclose(twice, wanted, rtol=1e-4)


@pytest.mark.slow
def test_fused_steps_use_every_core():
    from torch._inductor.utils import fresh_inductor_cache, run_and_get_code

    if best_steps().round is integer._round:
        pytest.skip("nothing can be compiled here")
    torch._dynamo.reset()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fresh_inductor_cache():
            _, programs = run_and_get_code(Steps(partial(torch.compile, dynamic=True)).try_out)
    finally:
        torch.set_num_threads(threads)
    assert len(programs) == 4
    assert all("omp parallel" in program for program in programs)


def test_without_a_compiler_the_steps_are_as_written(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", no_compiler)
    best_steps.cache_clear()
    assert best_steps().round is integer._round
    assert "no C++ compiler was found" in caplog.text
    best_steps.cache_clear()


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = IntegerLinear(Held(128, 64), Rounding(PLAIN, EXACT))
    x = inputs_like_an_llms(20, 128)
    assert torch.equal(torch.cat([layer(x[:7].clone()), layer(x[7:].clone())]), layer(x))


def test_what_was_rounded_goes_with_the_tensor():
    rounding, x = Rounding(PLAIN, EXACT), inputs_like_an_llms(20, 128)
    first = rounding.of(x)
    assert rounding.of(x) is first
    other = x.clone()
    assert rounding.of(other) is not first
    del x
    assert rounding._last is not None
    del other
    assert rounding._last is None


def test_layers_with_one_input_round_it_once(as_written, monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []
    counting = Steps(lambda step: step)
    counting.round_twice = lambda x: counted.append(len(x)) or integer._round_twice(x)
    monkeypatch.setattr(integer, "best_steps", lambda: counting)
    backbone = load("tiny-llama", "w8a8")
    ids = torch.tensor([backbone.encode("Yes, of course!")])
    with torch.no_grad():
        backbone.model(ids)
    assert len(list(quantised_layers(backbone.model))) == 2 * 7
    assert counted == [ids.shape[1]] * 2 * 4, "queries, keys and values read one tensor, gate and up another"


def test_products_that_overflow_are_not_quick(monkeypatch: pytest.MonkeyPatch):
    """As on a CPU whose 16-bit sums overflow, whatever it says of itself."""
    monkeypatch.setattr(integer, "abilities", lambda: dict.fromkeys(integer.UNITS, True))
    products_are_quick.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).clamp(-32768, 32767).int())
    assert not products_are_quick()
    products_are_quick.cache_clear()
    monkeypatch.setattr(integer, "abilities", dict)
    assert not products_are_quick()
    products_are_quick.cache_clear()


def test_a_cpu_without_integer_products_computes_the_same(as_written, monkeypatch: pytest.MonkeyPatch, caplog):
    """Up to fp32's rounding, which may move an integer by one."""
    steps = []
    for quick in (True, False):
        monkeypatch.setattr(integer, "products_are_quick", lambda quick=quick: quick)
        steps.append(take_step(load("tiny-llama", "w8a8")))
        assert ("neither VNNI nor AMX" in caplog.text) != quick
    compare(*steps, 0.9999, 1e-3)


@pytest.mark.parametrize("kind", ["tiny-llama", "qwen1-tiny", "chatglm3-tiny"])
def test_a_training_step(kind: str, as_written, request: pytest.FixtureRequest):
    name = name_of(kind, request)
    compare(take_step(load(name, "w8a8")), take_step(load(name, "int8")), 0.995, 0.005)


@pytest.mark.slow
def test_a_training_step_on_the_real_small_llm(smollm2: str):
    """With the steps fused, where there is a compiler."""
    step = take_step(load(smollm2, "w8a8"))
    compare(step, take_step(load(smollm2, "none")), 0.95, 0.2)
    compare(step, take_step(load(smollm2, "int8")), 0.98, 0.01)


def test_rounding_is_switched_off_within_also_when_nested(as_written):
    backbone, plain = load("tiny-llama", "w8a8"), load("tiny-llama", "int8")
    ids = torch.tensor([backbone.encode("Yes, of course!")])
    with torch.no_grad(), backbone.plainly():
        with backbone.plainly():
            pass
        assert torch.equal(backbone.model(ids).logits, plain.model(ids).logits)
    with torch.no_grad():
        assert not torch.equal(backbone.model(ids).logits, plain.model(ids).logits)


def test_it_is_for_cpus():
    check_kind("w8a8", "cpu")
    with pytest.raises(MsekitError, match="not on cuda") as error:
        check_kind("w8a8", "cuda")
    assert "int8" in str(error.value.fix)
