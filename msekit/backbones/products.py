"""Products with a frozen weight on a CPU, the weight laid out once for them instead of at every call.

A matrix product first copies its operands into blocks that fit the core. A frozen weight can be kept so: one copy for
the forward pass and, transposed, one for the gradient, which is made when a gradient is asked for. Small LLMs
only, `PACKED_MOST` says how small; the others are multiplied as they are. The blocks are oneDNN's, through the
operators that torch's own compiler uses; where they are missing, weights are multiplied as they are, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.backbones.kinds import PACKED_MOST

_ROWS = 512
"""For so many rows at a time oneDNN chooses its blocks; others are multiplied with them just as well."""


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
            known = self._copies[transposed] = (state, torch.ops.mkldnn._reorder_linear_weight(plain, _ROWS))
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


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _multiply_add(x: Tensor, other: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, packed, bias, "add")


def products_of(linears: list[nn.Linear]) -> list[Product]:
    """One for each of an LLM's linear layers, packed where they are small enough and torch can."""
    copies = 2 * sum(linear.weight.nbytes for linear in linears)
    kind = PackedProduct if copies <= PACKED_MOST and _can_pack(linears[0]) else Product
    return [kind(linear) for linear in linears]


def _can_pack(linear: nn.Linear) -> bool:
    try:
        few = linear.weight.new_ones(2, linear.in_features)
        return PackedProduct(linear).plus(few, linear(few)).shape == (2, linear.out_features)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
