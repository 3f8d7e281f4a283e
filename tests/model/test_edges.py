"""The trie's edges are scored as a log-softmax would, gradients too, without its temporaries."""

from __future__ import annotations

import torch
from torch import Tensor

from msekit.model.edges import EdgeScores

ROW = torch.tensor([0, 0, 1, 2, 2, 2])
TOKEN = torch.tensor([4, 1, 0, 4, 3, 1])


def plain(logits_BMV: Tensor) -> Tensor:
    return logits_BMV.log_softmax(dim=-1)[:, ROW, TOKEN]


def test_scores_and_gradients_are_those_of_a_log_softmax():
    logits_BMV = 3 * torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits_BMV.requires_grad_()
    assert torch.allclose(EdgeScores.apply(logits_BMV, ROW, TOKEN), plain(logits_BMV))
    assert torch.autograd.gradcheck(lambda logits: EdgeScores.apply(logits, ROW, TOKEN), logits_BMV)


def test_one_edge_twice_counts_twice():
    logits_BMV = torch.randn(1, 1, 3, dtype=torch.float64).requires_grad_()
    both = torch.zeros(2, dtype=torch.long)
    assert torch.autograd.gradcheck(lambda logits: EdgeScores.apply(logits, both, both), logits_BMV)


def test_what_is_kept_for_the_backward_pass_is_the_logits_alone():
    logits_BMV = torch.randn(2, 4, 50).requires_grad_()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        EdgeScores.apply(logits_BMV, ROW, TOKEN)
    assert sorted(kept.values())[-2:] == [8, 400]
