"""Products with a frozen weight: packed and plain give the same, and only small LLMs are packed."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

from msekit.backbones.cpu import packed_products
from msekit.backbones.cpu.packed_products import (
    DirectProduct,
    FrozenProduct,
    PackedProduct,
    Product,
    product_of,
    products_of,
)
from msekit.backbones.shape import shape_of
from msekit.planning.memory import Holding, copied_bytes

packs = pytest.mark.skipif(
    not packed_products._works(torch.float32), reason="this torch has no oneDNN to lay out weights with"
)


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 24, bias).requires_grad_(False)


@packs
@pytest.mark.parametrize("rows", [1, 7, 600])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_layers(bias: bool, rows: int):
    layer = linear(bias)
    kinds = (Product(layer), DirectProduct(layer), PackedProduct(layer))
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
    assert all(type(each) is PackedProduct for each in products_of(layers))
    monkeypatch.setattr(packed_products, "PACKED_MOST", 2 * 2 * 40 * 24 * 4 - 1)
    assert all(type(each) is type(product_of(layers[0])) is not PackedProduct for each in products_of(layers))


@packs
@pytest.mark.parametrize("may_start", [True, False])
def test_wide_and_narrow_blocks_give_the_same_and_leave_the_threads_alone(
    may_start: bool, monkeypatch: pytest.MonkeyPatch
):
    layer, x = nn.Linear(96, 320).requires_grad_(False), torch.randn(50, 96)
    outputs, threads = [], torch.get_num_threads()
    monkeypatch.setattr(packed_products, "_may_start", lambda _: may_start)
    for on_avx2 in (True, False):
        monkeypatch.setattr(packed_products, "_on_avx2", lambda _, on_avx2=on_avx2: on_avx2)
        outputs.append(PackedProduct(layer)(x))
        assert torch.get_num_threads() == threads
        assert type(product_of(layer)) is (DirectProduct if on_avx2 else Product)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        assert torch.equal(*outputs)
    torch.testing.assert_close(*outputs)


@packs
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="narrow blocks are for AVX2 alone")
@pytest.mark.skipif(
    not packed_products._may_start(packed_products._MOST_THREADS), reason="this process may not start more threads"
)
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (576, 1536), (1536, 576)])
def test_onednn_does_give_narrow_blocks(inputs: int, outputs: int, capfd: pytest.CaptureFixture[str]):
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        packed_products._lay_out(torch.zeros(outputs, inputs))
    assert "dst:f32::blocked:AB16b16a" in capfd.readouterr().out


def test_more_threads_than_a_process_may_have_are_noticed(monkeypatch: pytest.MonkeyPatch):
    assert packed_products._may_start.__wrapped__(3)
    begin, left = threading.Thread.start, iter(range(2))

    def start(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    before = threading.active_count()
    assert not packed_products._may_start.__wrapped__(3)
    assert threading.active_count() == before


@packs
@pytest.mark.parametrize("bias", [True, False])
def test_a_frozen_product_is_the_layer_and_its_gradient(bias: bool):
    layer, x = linear(bias), torch.randn(6, 40, requires_grad=True)
    for product in (Product(layer), DirectProduct(layer)):
        mine, plain = FrozenProduct.apply(x, product), layer(x)
        torch.testing.assert_close(mine, plain)
        grad = torch.randn_like(plain)
        torch.testing.assert_close(torch.autograd.grad(mine, x, grad), torch.autograd.grad(plain, x, grad))


def test_without_onednn_weights_are_multiplied_as_they_are(monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_products, "_multiply_add", missing)
    assert type(products_of([linear()])[0]) is Product


def test_a_plan_counts_the_copies():
    shape = shape_of("tiny-llama")
    weights = sum(each.inputs * each.outputs * each.count for each in shape.linears)
    assert copied_bytes(shape, Holding("fp32", "none", cuda=False)) == 2 * 4 * weights
    assert copied_bytes(shape, Holding("bf16", "none", cuda=False)) == 2 * 2 * weights
    assert copied_bytes(shape, Holding("fp32", "int8", cuda=False)) == 0
    assert copied_bytes(shape, Holding("fp32", "none", cuda=True)) == 0
    assert copied_bytes(shape_of("qwen-1.8b"), Holding("fp32", "none", cuda=False)) == 0


@packs
def test_copies_follow_the_weight_and_can_be_given_back():
    layer = linear()
    product, x, grad = PackedProduct(layer), torch.randn(3, 40), torch.randn(3, 24)
    product(x), product.back(grad)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(product(x), layer(x))
    torch.testing.assert_close(product.back(grad), grad @ layer.weight)
    product.forget(transposed_alone=True)
    assert list(product._copies) == [False]
    product.forget()
    assert not product._copies
    torch.testing.assert_close(copy.deepcopy(product)(x), product(x))
