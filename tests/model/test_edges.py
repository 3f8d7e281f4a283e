"""The trie's edges are scored as a log-softmax would, gradients too, without its temporaries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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


def test_no_sum_depends_on_the_order_in_which_a_gpu_gets_to_it():
    """torch names what adds up in whatever order threads come; `index_put_` has none of it where told to accumulate."""
    logits_BMV = torch.randn(2, 4, 5).requires_grad_()
    called: list[str] = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    loss = EdgeScores.apply(logits_BMV, ROW, TOKEN).sum()
    with Calls():
        loss.backward()
    assert "index_put_" in called
    assert not {"index_add_", "scatter_add_", "index_add", "scatter_add"} & set(called)


def test_the_sum_over_a_nodes_edges_is_to_the_bit_what_adding_them_one_by_one_gives():
    grad_BE = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.zeros(3, 4).index_add_(1, ROW, grad_BE)
    logits_BMV = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    EdgeScores.apply(logits_BMV, ROW, TOKEN).backward(grad_BE)
    softmax = (logits_BMV - logits_BMV.logsumexp(dim=-1, keepdim=True)).exp()
    expected = (softmax * -one_by_one[..., None]).index_put_(
        (torch.arange(3)[:, None], ROW, TOKEN), grad_BE, accumulate=True
    )
    assert torch.equal(logits_BMV.grad, expected)
