"""Products with a frozen weight on a CPU, the weight laid out once for them instead of at every call.

A matrix product first copies its operands into blocks that fit the core. A frozen weight can be kept so: one copy for
the forward pass and, transposed, one for the gradient, which is made when a gradient is asked for. Small LLMs
only, `PACKED_MOST` says how small; the others are multiplied as they are. The blocks are oneDNN's, through the
operators that torch's own compiler uses; where they are missing, weights are multiplied as they are, too.

oneDNN likes blocks of 64 columns. AVX2's 16 registers hold 8 numbers each, half of them for one row of such a block;
blocks of 16 columns are mostly multiplied faster there, by up to a fifth, and bit for bit alike ("Speed" in
`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Event, Thread
from typing import Any

import torch
import torch.nn.functional as F
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from msekit.backbones.holding import PACKED_MOST

_ROWS = 512
"""For so many rows at a time oneDNN chooses its blocks; others are multiplied with them just as well."""
_WIDE = 64
"""Columns of the blocks that oneDNN likes."""
_MOST_THREADS = 64
"""A weight that would need more is laid out in wide blocks."""


class Product:
    """A frozen linear layer and the gradient of its input, over a weight as it is.

    Shapes: M rows, K features in, N features out.

    Args:
        linear: The layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def forget(self, transposed_alone: bool = False) -> None:
        """Give the memory of copies back, where there are any."""

    def __call__(self, x_MK: Tensor) -> Tensor:
        """(M, K) → (M, N)."""
        return F.linear(x_MK, self.linear.weight, self.linear.bias)

    def plus(self, x_MK: Tensor, other_MN: Tensor) -> Tensor:
        """(M, K) and (M, N) → (M, N): the layer's output and something else."""
        y_MN = torch.addmm(other_MN, x_MK, self.linear.weight.T)
        return y_MN if self.linear.bias is None else y_MN.add_(self.linear.bias)

    def back(self, grad_MN: Tensor) -> Tensor:
        """(M, N) → (M, K)."""
        return grad_MN @ self.linear.weight

    def back_plus(self, grad_MN: Tensor, other_MK: Tensor) -> Tensor:
        """(M, N) and (M, K) → (M, K): the gradient and something else."""
        return torch.addmm(other_MK, grad_MN, self.linear.weight)


class DirectProduct(Product):
    """The same by oneDNN, which on AVX2 is mostly quicker than torch's own product, with a head by far."""

    def __call__(self, x_MK: Tensor) -> Tensor:
        """See `Product`."""
        return _multiply(x_MK, self.linear.weight, self.linear.bias)


class PackedProduct(Product):
    """The same over copies of the weight in oneDNN's blocks."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._copies: dict[bool, tuple[tuple[int, int], Tensor]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Without the copies, which nothing can copy or store: they are made again."""
        return vars(self) | {"_copies": {}}

    def forget(self, transposed_alone: bool = False) -> None:
        """See `Product`; what is asked for again is made again."""
        self._copies.pop(True, None)
        if not transposed_alone:
            self._copies.clear()

    def _copy(self, transposed: bool) -> Tensor:
        weight = self.linear.weight
        state = (weight.data_ptr(), weight._version)  # frozen or not: a copy of what it was would go unnoticed
        known = self._copies.get(transposed)
        if known is None or known[0] != state:
            plain = weight.detach().T.contiguous() if transposed else weight.detach()
            known = self._copies[transposed] = (state, _lay_out(plain))
        return known[1]

    def __call__(self, x_MK: Tensor) -> Tensor:
        """See `Product`."""
        return _multiply(x_MK, self._copy(False), self.linear.bias)

    def plus(self, x_MK: Tensor, other_MN: Tensor) -> Tensor:
        """See `Product`."""
        return _multiply_add(x_MK, other_MN, self._copy(False), self.linear.bias)

    def back(self, grad_MN: Tensor) -> Tensor:
        """See `Product`."""
        return _multiply(grad_MN, self._copy(True), None)

    def back_plus(self, grad_MN: Tensor, other_MK: Tensor) -> Tensor:
        """See `Product`."""
        return _multiply_add(grad_MN, other_MK, self._copy(True), None)


class FrozenProduct(torch.autograd.Function):
    """A frozen linear layer; its weight gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, product: Product) -> Tensor:
        """(M, K) → (M, N)."""
        ctx.product = product
        return product(x_MK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """(M, N) → (M, K)."""
        return ctx.product.back(grads[0]), None


def _lay_out(weight_NK: Tensor) -> Tensor:
    """The copy in blocks, narrow ones where those are multiplied faster.

    Nothing asks oneDNN for narrow blocks but having fewer wide ones than threads. So a thread of its own, for which
    alone OpenMP's count of threads is raised, lays the weight out as if for that many.
    """
    threads = len(weight_NK) // _WIDE + 2
    if not _on_avx2(weight_NK) or threads > _MOST_THREADS or not _may_start(_MOST_THREADS):
        return torch.ops.mkldnn._reorder_linear_weight(weight_NK, _ROWS)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_lay_out_for, threads, weight_NK).result()


def _lay_out_for(threads: int, weight_NK: Tensor) -> Tensor:
    torch.get_num_threads()  # a new thread takes torch's count when first asked: not later than here
    with _libraries().limit(limits=threads, user_api="openmp"):
        return torch.ops.mkldnn._reorder_linear_weight(weight_NK, _ROWS)


@cache
def _libraries() -> ThreadpoolController:
    """The loaded libraries that have threads; looking for them takes milliseconds."""
    return ThreadpoolController()


@cache
def _may_start(threads: int) -> bool:
    """Whether this process may have so many threads more: OpenMP ends a process that asks for one too many."""
    end, started = Event(), []
    try:
        for _ in range(threads):
            thread = Thread(target=end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        end.set()
        for thread in started:
            thread.join()
    return True


def _on_avx2(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX2"


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _multiply_add(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, "add")


def products_of(linears: list[nn.Linear]) -> list[Product]:
    """One for each of an LLM's linear layers, packed where they are small enough and torch can."""
    copies = 2 * sum(linear.weight.nbytes for linear in linears)
    kind = _kind(linears[0].weight, packed=copies <= PACKED_MOST)
    return [kind(linear) for linear in linears]


def product_of(linear: nn.Linear) -> Product:
    """One for a linear layer, without a copy of its weight."""
    return _kind(linear.weight, packed=False)(linear)


def _kind(weight: Tensor, packed: bool) -> type[Product]:
    if not _works(weight.dtype):
        return Product
    return PackedProduct if packed else DirectProduct if _on_avx2(weight) else Product


def _works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators are there and take the precision."""
    few = nn.utils.skip_init(nn.Linear, 2, 2, dtype=dtype).requires_grad_(False)
    try:
        return PackedProduct(few).plus(DirectProduct(few)(few.weight), few.weight).shape == (2, 2)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
