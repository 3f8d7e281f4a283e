"""EdgeScores: log-probabilities of the label trie's edges, with a hand-written backward pass that needs less memory.

The score of edge e, which leaves inner node m = row[e] with token v = token[e], is

    s[e] = z[m, v] - log sum_w exp z[m, w]            z: next-token logits

and with g[e] = dL/ds[e] its gradient is

    dL/dz[m, w] = sum of g[e] over m's edges with token w  -  softmax(z[m])[w] * sum of g[e] over all of m's edges

Autograd's own backward pass makes several arrays of the logits' size (B, M, V); for 61 labels, 49,152 tokens and a
batch of 16 each takes 60 MB (`benchmarks/memory/step_memory.py`). This one makes a single array, in place, by the same
arithmetic: nothing is traded for the memory.

Shapes: B batch, M inner nodes of the trie, E edges, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """Log-probability of every edge of the label trie, (B, E) float32 each."""

    joint: Tensor
    """What answers are read from: the LLM's, multiplied with the adapter's opinion if it has one."""
    llm: Tensor | None = None
    """The LLM's alone; None where there is no opinion beside it."""
    opinion: Tensor | None = None
    """The adapter's alone."""


class EdgeScores(torch.autograd.Function):
    """Logits at the inner nodes → log-probability of every edge."""

    @staticmethod
    def forward(ctx: Any, logits_BMV: Tensor, row_E: Tensor, token_E: Tensor) -> Tensor:
        """Score every edge.

        Args:
            ctx: Autograd's.
            logits_BMV: Next-token logits at the inner nodes, float32.
            row_E: The inner node that each edge leaves.
            token_E: The token on each edge.

        Returns:
            (B, E) float32.
        """
        normaliser_BM = logits_BMV.logsumexp(dim=-1)
        ctx.save_for_backward(logits_BMV, normaliser_BM, row_E, token_E)
        return logits_BMV[:, row_E, token_E] - normaliser_BM[:, row_E]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the logits, by the formula in the module's docstring."""
        logits_BMV, normaliser_BM, row_E, token_E = ctx.saved_tensors
        (grad_BE,) = grads
        batch_B1 = torch.arange(len(grad_BE), device=grad_BE.device)[:, None]
        # sum of g over each node's edges; unlike `index_add_`, on a GPU too always in the same order
        grad_BM = torch.zeros_like(normaliser_BM).index_put_((batch_B1, row_E), grad_BE, accumulate=True)
        # second term, the only array of the logits' size: softmax = exp(z - logsumexp), times -sum of g
        grad_BMV = (logits_BMV - normaliser_BM[..., None]).exp_().mul_(-grad_BM[..., None])
        # first term: each edge's own g at its node and token
        return grad_BMV.index_put_((batch_B1, row_E, token_E), grad_BE, accumulate=True), None, None
