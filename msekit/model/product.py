"""Product: an adapter's opinion and the LLM's label scores as one distribution, edge by edge of the label trie.

The LLM gives every edge of the trie a log-probability s[e]; the opinion o[k] is about whole labels. At an inner node m
the opinion's share of edge e is the probability of all labels beneath it, H[e] = log sum_{k beneath e} exp o[k]. Both
are multiplied and normalised over the edges that leave the node (a product of experts, Hinton 2002):

    t[e] = w s[e] + H[e] - log sum_{e' leaves m} exp(w s[e'] + H[e'])

where w says how far the LLM is trusted; it is fitted on validation, where the opinion is not surer of itself than it
should be. An answer's log-probability is still the sum along its path, and whoever writes an answer token by token
multiplies at every token alone (`decoding.py`). If the LLM is indifferent, exp t along the path of label k is exp o[k].

Shapes: B batch, K labels, E edges of the trie, M inner nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msekit.model.answers import Answers, Asked
from msekit.model.labels import Trie

WEIGHTS = tuple(number / 20 for number in range(31))
"""Weights of the LLM that are tried: 0, where the opinion answers alone, to 1.5."""


class Product(nn.Module):
    """Multiplies opinions with the scores of a trie's edges.

    Args:
        trie: Of the labels.
    """

    beneath: Tensor
    """(K, E) 0 where the label lies beneath the edge, -inf elsewhere."""
    siblings: Tensor
    """(M, E) 0 where the edge leaves the inner node, -inf elsewhere."""
    row: Tensor
    """(E,) the inner node that each edge leaves."""

    def __init__(self, trie: Trie) -> None:
        super().__init__()
        paths_KE, row_E = torch.from_numpy(trie.paths), torch.from_numpy(trie.edge_row)
        leaves_ME = torch.arange(len(trie.inner))[:, None] == row_E
        self.register_buffer("beneath", _log(paths_KE > 0), persistent=False)
        self.register_buffer("siblings", _log(leaves_ME), persistent=False)
        self.register_buffer("row", row_E, persistent=False)

    def opinion(self, opinion_BK: Tensor) -> Tensor:
        """Log-probabilities of labels → of the edges, given that their node is reached. (B, K) → (B, E)."""
        return self._normalised((opinion_BK[:, :, None] + self.beneath).logsumexp(dim=1))

    def forward(self, llm_BE: Tensor, opinion_BE: Tensor, weight: Tensor | float) -> Tensor:
        """Multiply the LLM's edges with the opinion's: log-probabilities that sum to 1 at every node, (B, E)."""
        return self._normalised(weight * llm_BE + opinion_BE)

    @torch.no_grad()
    def fitted_weight(self, llm_NE: Tensor, opinion_NE: Tensor, label_N: Tensor) -> float:
        """The smallest weight of the LLM with which N samples' true labels are as probable as with the best."""
        on_path_NE = (self.beneath == 0)[label_N].to(llm_NE.dtype)
        losses_WN = [-(self(llm_NE, opinion_NE, weight) * on_path_NE).sum(dim=1) for weight in WEIGHTS]
        return smallest_as_good(torch.stack(losses_WN).double())

    def _normalised(self, edges_BE: Tensor) -> Tensor:
        total_BM = (edges_BE[:, None] + self.siblings).logsumexp(dim=2)
        return edges_BE - total_BM[:, self.row]


class Products(nn.Module):
    """One product for each of several questions, whose labels and edges stand one after the other (`answers.py`).

    Args:
        asked: The questions.
    """

    def __init__(self, asked: Sequence[Asked]) -> None:
        super().__init__()
        self.asked, self.each = tuple(asked), nn.ModuleList(Product(one.space.trie) for one in asked)

    def opinion(self, opinion_BK: Tensor) -> Tensor:
        """Log-probabilities of all questions' labels → of their edges. (B, K) → (B, E)."""
        parts = [self._of(number).opinion(opinion_BK[:, one.labels]) for number, one in enumerate(self.asked)]
        return torch.cat(parts, dim=1)

    def forward(self, llm_BE: Tensor, opinion_BE: Tensor, weight: Tensor | float) -> Tensor:
        """Multiply; `weight` is one for all, or (Q,) one for each question: (B, E)."""
        parts = []
        for number, one in enumerate(self.asked):
            own = weight[number] if isinstance(weight, Tensor) else weight
            parts.append(self._of(number)(llm_BE[:, one.edges], opinion_BE[:, one.edges], own))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def fitted_weight(self, llm_NE: Tensor, opinion_NE: Tensor, label_NQ: Tensor) -> Tensor:
        """Each question's weight of the LLM, (Q,), from the samples that answer it; 1 where none does."""
        weights = []
        for number, one in enumerate(self.asked):
            known_N = label_NQ[:, number] >= 0
            parts = (llm_NE[known_N, one.edges], opinion_NE[known_N, one.edges], label_NQ[known_N, number])
            weights.append(self._of(number).fitted_weight(*parts) if bool(known_N.any()) else 1.0)
        return torch.tensor(weights)

    def _of(self, number: int) -> Product:
        product = self.each[number]
        assert isinstance(product, Product)
        return product


def smallest_as_good(losses_WN: Tensor) -> float:
    """The smallest of the weights that N samples cannot tell from the best.

    What lies within one standard error of it, sample by sample, is as good (the rule of Breiman et al. 1984 for the
    size of a tree): few voices like much that others do not.
    """
    worse_WN = losses_WN - losses_WN[losses_WN.mean(dim=1).argmin()]
    as_good_W = worse_WN.mean(dim=1) <= worse_WN.std(dim=1, correction=0) / math.sqrt(worse_WN.shape[1])
    return WEIGHTS[as_good_W.tolist().index(True)]


def product_of(answers: Answers) -> Product | Products:
    """What multiplies opinions and label scores."""
    return Products(answers.asked) if answers.several else Product(answers.space.trie)


def _log(where: Tensor) -> Tensor:
    return torch.zeros(where.shape).masked_fill(~where, float("-inf"))
