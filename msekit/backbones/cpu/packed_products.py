"""Products with a frozen weight on a CPU, the weight laid out once for them instead of at every call.

A matrix product first copies its operands into blocks that fit the core. A frozen weight can be kept so: one copy for
the forward pass and, transposed, one for the gradient, which is made when a gradient is asked for. The blocks are
oneDNN's, through the operators that torch's own compiler uses. It pays on `LAID_OUT_ON`'s CPUs, for LLMs whose copies
take no more than `PACKED_MOST`; everywhere else weights are multiplied as they are.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.backbones.holding import LAID_OUT_ON, PACKED_MOST, cpu_vendor

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

    def _copy(self, transposed: bool) -> Tensor:
        weight = self.linear.weight
        state = (weight.data_ptr(), weight._version)  # frozen or not: a copy of what it was would go unnoticed
        made = self._copies.get(transposed)
        if made is None or made[0] != state:
            plain = weight.detach().T.contiguous() if transposed else weight.detach()
            made = self._copies[transposed] = (state, torch.ops.mkldnn._reorder_linear_weight(plain, _ROWS))
        return made[1]

    def __call__(self, x_MK: Tensor) -> Tensor:
        """(M, K) → (M, N)."""
        return _multiply(x_MK, self._copy(False), self.linear.bias)

    def plus(self, x_MK: Tensor, other_MN: Tensor) -> Tensor:
        """(M, K) and (M, N) → (M, N): the layer's output and something else."""
        return _multiply_add(x_MK, other_MN, self._copy(False), self.linear.bias)

    def back(self, grad_MN: Tensor) -> Tensor:
        """(M, N) → (M, K)."""
        return _multiply(grad_MN, self._copy(True), None)

    def back_plus(self, grad_MN: Tensor, other_MK: Tensor) -> Tensor:
        """(M, N) and (M, K) → (M, K): the gradient and something else."""
        return _multiply_add(grad_MN, other_MK, self._copy(True), None)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _multiply_add(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, "add")


def why_not_packed(linears: list[nn.Linear]) -> str | None:
    """Why an LLM's linear layers are multiplied as they are; None where copies pay, are few enough and torch can."""
    if (vendor := cpu_vendor()) != LAID_OUT_ON:
        return f"it pays on CPUs of {LAID_OUT_ON}, and this one is of {vendor or 'a vendor not told'}"
    copies = 2 * sum(linear.weight.nbytes for linear in linears)
    if copies > PACKED_MOST:
        return f"copies of its weights would take {copies / 2**30:.1f} GiB, more than {PACKED_MOST / 2**30:.1f}"
    return why_not_here(linears[0].weight.dtype)


@cache
def why_not_here(dtype: torch.dtype) -> str | None:
    """Why oneDNN's operators do not take a precision here; None where they do."""
    few = nn.utils.skip_init(nn.Linear, 2, 2, dtype=dtype).requires_grad_(False)
    few.weight.fill_(1)
    few.bias.fill_(0)
    try:
        PackedProduct(few).plus(few.weight, few.weight)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError) as error:
        return f"this torch lays no {dtype} weights out ({next(iter(str(error).splitlines()), type(error).__name__)})"
    return None
