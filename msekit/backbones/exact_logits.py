"""Logits of a few tokens in fp32, where an LLM computes in 16 bit.

bf16 numbers between 8 and 16 lie .0625 apart, and so do an LLM's logits: of the labels' tokens several have the very
same one, and which is the largest is a matter of the batch. So the tokens that are scored are multiplied once more: the
head's input as it is, by their rows of the head, in fp32. For the few tokens of a data set's labels that costs nothing.

Shapes: B batch, S columns, V vocabulary, T the few tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SHORT = (torch.bfloat16, torch.float16)


class ExactLogits:
    """Watches a frozen LLM's head, and within `of` replaces its logits.

    Args:
        head: The layer that gives the logits.
    """

    def __init__(self, head: nn.Module) -> None:
        self._tokens: Tensor | None = None
        head.register_forward_hook(self._replace)

    @contextmanager
    def of(self, tokens_T: Tensor | None) -> Iterator[None]:
        """Within, logits of a 16-bit head are fp32, those of these tokens as if all of it were; None changes nothing.

        An architecture that scales or caps its logits does so afterwards, to all alike.
        """
        before, self._tokens = self._tokens, tokens_T
        try:
            yield
        finally:
            self._tokens = before

    def _replace(self, head: Any, inputs: tuple[Tensor, ...], logits_BSV: Tensor) -> Tensor | None:
        if self._tokens is None or logits_BSV.dtype not in SHORT:
            return None
        rows_Td = head.weight[self._tokens].float()
        bias = getattr(head, "bias", None)
        bias_T = None if bias is None else bias[self._tokens].float()
        return Replaced.apply(logits_BSV, inputs[0], rows_Td, bias_T, self._tokens)


class Replaced(torch.autograd.Function):
    """16-bit logits → the same in fp32, with those of some tokens computed anew."""

    @staticmethod
    def forward(
        ctx: Any, logits_BSV: Tensor, hidden_BSd: Tensor, rows_Td: Tensor, bias_T: Tensor | None, tokens_T: Tensor
    ) -> Tensor:
        """Compute them.

        Args:
            ctx: Autograd's.
            logits_BSV: As the head gives them.
            hidden_BSd: The head's input.
            rows_Td: The head's weights of the tokens, fp32.
            bias_T: Its biases of them, or None.
            tokens_T: The tokens, each once.

        Returns:
            (B, S, V) float32.
        """
        exact_BST = hidden_BSd.float() @ rows_Td.T
        if bias_T is not None:
            exact_BST += bias_T
        ctx.save_for_backward(rows_Td, tokens_T)
        ctx.kinds = logits_BSV.dtype, hidden_BSd.dtype
        return logits_BSV.float().index_copy_(-1, tokens_T, exact_BST)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Gradients of the head's logits, none for the tokens', and of the head's input by the tokens alone."""
        rows_Td, tokens_T = ctx.saved_tensors
        (grad_BSV,) = grads
        of_logits, of_hidden = ctx.kinds
        own_BSd = grad_BSV[..., tokens_T] @ rows_Td
        return grad_BSV.to(of_logits).index_fill_(-1, tokens_T, 0), own_BSd.to(of_hidden), None, None, None
