"""Log-probabilities of the label trie's edges, with a backward pass that holds the vocabulary's width only once.

Written plainly, the backward pass holds several arrays of the logits' size at once; for 61 labels, 49,152 tokens and a
batch of 16 each takes 60 MB (`benchmarks/memory/step_memory.py`).

Shapes: B batch, M inner nodes of the trie, E edges, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class EdgeScores(torch.autograd.Function):
    """`logits[:, row, token] - logsumexp(logits)[:, row]` for every edge."""

    @staticmethod
    def forward(ctx: Any, logits_BMV: Tensor, row_E: Tensor, token_E: Tensor) -> Tensor:
        """Score every edge.

        Args:
            ctx: Autograd's.
            logits_BMV: Next-token logits at the inner nodes, float32.
            row_E: The node that an edge starts from.
            token_E: The token that it stands for.

        Returns:
            (B, E) float32.
        """
        normaliser_BM = logits_BMV.logsumexp(dim=-1)
        ctx.save_for_backward(logits_BMV, normaliser_BM, row_E, token_E)
        return logits_BMV[:, row_E, token_E] - normaliser_BM[:, row_E]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Softmax times what a node's edges ask for, and what each edge asks for at its token."""
        logits_BMV, normaliser_BM, row_E, token_E = ctx.saved_tensors
        (grad_BE,) = grads
        grad_BM = torch.zeros_like(normaliser_BM).index_add_(1, row_E, grad_BE)
        grad_BMV = (logits_BMV - normaliser_BM[..., None]).exp_().mul_(-grad_BM[..., None])
        batch_B1 = torch.arange(len(grad_BE), device=grad_BE.device)[:, None]
        return grad_BMV.index_put_((batch_B1, row_E, token_E), grad_BE, accumulate=True), None, None
