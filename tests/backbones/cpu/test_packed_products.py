"""Products with a frozen weight: packed and plain give the same, and only small LLMs are packed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from msekit.backbones.cpu import packed_products
from msekit.backbones.cpu.packed_products import PackedProduct, Product, why_not_packed
from msekit.backbones.holding import LAID_OUT_ON, cpu_vendor
from msekit.backbones.shape import shape_of
from msekit.planning import memory
from msekit.planning.memory import Holding, copied_bytes

packs = pytest.mark.skipif(
    packed_products.why_not_here(torch.float32) is not None, reason="this torch has no oneDNN to lay out weights with"
)


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 24, bias).requires_grad_(False)


@packs
@pytest.mark.parametrize("rows", [1, 7, 600])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_layers(bias: bool, rows: int):
    layer = linear(bias)
    kinds = (Product(layer), PackedProduct(layer))
    x = torch.randn(rows, 40, requires_grad=True)
    grad, other_in, other_out = (torch.randn(rows, size) for size in (24, 40, 24))
    y = layer(x)
    (back,) = torch.autograd.grad(y, x, grad)
    for product in kinds:
        with torch.no_grad():
            torch.testing.assert_close(product(x), y)
            torch.testing.assert_close(product.plus(x, other_out), y + other_out)
            torch.testing.assert_close(product.back(grad), back)
            torch.testing.assert_close(product.back_plus(grad, other_in), back + other_in)


@packs
def test_small_llms_are_packed_and_larger_ones_multiplied_as_they_are(monkeypatch: pytest.MonkeyPatch):
    layers = [linear(), linear()]
    monkeypatch.setattr(packed_products, "cpu_vendor", lambda: LAID_OUT_ON)
    assert why_not_packed(layers) is None
    monkeypatch.setattr(packed_products, "PACKED_MOST", 2 * 2 * 40 * 24 * 4 - 1)
    assert "more than" in str(why_not_packed(layers))


def test_without_onednn_weights_are_multiplied_as_they_are_and_it_is_told(monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_products, "_multiply_add", missing)
    assert "no such operator" in str(packed_products.why_not_here.__wrapped__(torch.float32))


@pytest.mark.parametrize("vendor", ["GenuineIntel", ""])
def test_where_it_does_not_pay_weights_are_multiplied_as_they_are(vendor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_products, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(memory, "cpu_vendor", lambda: vendor)
    assert (vendor or "not told") in str(why_not_packed([linear()]))
    assert copied_bytes(shape_of("tiny-llama"), Holding("fp32", "none", cuda=False)) == 0


def test_this_cpu_names_its_vendor():
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    names = {line.split(": ")[1] for line in text.splitlines() if line.startswith("vendor_id")}
    assert {cpu_vendor()} == (names or {""})


def test_a_plan_counts_the_copies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "cpu_vendor", lambda: LAID_OUT_ON)
    shape = shape_of("tiny-llama")
    weights = sum(each.inputs * each.outputs * each.count for each in shape.linears)
    assert copied_bytes(shape, Holding("fp32", "none", cuda=False)) == 2 * 4 * weights
    assert copied_bytes(shape, Holding("bf16", "none", cuda=False)) == 2 * 2 * weights
    assert copied_bytes(shape, Holding("fp32", "int8", cuda=False)) == 0
    assert copied_bytes(shape, Holding("fp32", "none", cuda=True)) == 0
    assert copied_bytes(shape, Holding("fp32", "none", cuda=False, written_out=False)) == 0
    assert copied_bytes(shape_of("qwen-1.8b"), Holding("fp32", "none", cuda=False)) == 0


@packs
def test_copies_follow_the_weight_and_are_not_copied():
    layer = linear()
    product, x, grad = PackedProduct(layer), torch.randn(3, 40), torch.randn(3, 24)
    product(x), product.back(grad)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(product(x), layer(x))
    torch.testing.assert_close(product.back(grad), grad @ layer.weight)
    torch.testing.assert_close(copy.deepcopy(product)(x), product(x))
