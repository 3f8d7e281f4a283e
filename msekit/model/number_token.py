"""NumberTokenLoss: a wrong digit costs the more, the farther it is from the true digit.

Zausinger et al., "Regress, Don't Guess: A Regression-like Loss on Number Tokens for Language Models", ICML 2025
(arXiv 2411.02083), in their Wasserstein-1 form, NTL-WAS: where the true token is a number y, the probabilities of the
number tokens V_j, normalised among themselves, cost sum_j p_j |V_j - y|; other places cost nothing. It works on tokens,
as theirs does, so a label "+1.3" of the tokens `+ 1 . 3` has two places that count, ones and tenths, each in digits (a
tenth too far costs 1, as a whole unit does). The sign and the point are no numbers: `+` for `-` costs nothing here,
which leaves the sign to the cross-entropy beside it. A tokenizer that writes a number as one token gives that token's
value: with `1.3` as one token the distance is that of the labels, among those that share what was written before it.

Two differences from theirs: the number tokens of a place are those that some label has there, not all of the
vocabulary's, because an answer is always a label; and the places of a sample are summed, as its cross-entropy is, where
they take means of both. For labels of four tokens, two of them digits, their weight of .3 corresponds to .6 here.

Shapes: B batch, E edges of the label trie, K labels, G places (inner nodes of the trie that number tokens leave), W the
largest number of number tokens at a place.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from msekit.errors import MsekitError
from msekit.model.labels import Trie

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")


class NumberTokenLoss(nn.Module):
    """NTL-WAS over a label trie.

    Args:
        trie: The labels as tokens.
        decode: Token → its text.

    Raises:
        MsekitError: No place offers two number tokens, so that there is no distance to measure.
    """

    choices: Tensor
    """(G, W) edges of each place's number tokens; a place with fewer than W of them repeats its first."""
    unused: Tensor
    """(G, W) bool, true at these repetitions."""
    distances: Tensor
    """(K, G, W) |V_j - y| where the label's path takes a number token at the place, else 0."""

    def __init__(self, trie: Trie, decode: Callable[[int], str]) -> None:
        super().__init__()
        texts = [decode(int(token)).strip() for token in trie.token]
        values = {edge: float(text) for edge, text in enumerate(texts) if NUMBER.fullmatch(text)}
        places: dict[int, list[int]] = {}
        for edge in values:
            places.setdefault(int(trie.parent[edge]), []).append(edge)
        width = max(map(len, places.values()), default=0)
        if width < 2:
            raise MsekitError(
                "loss.number_token: this tokenizer writes the labels without number tokens", fix="Use loss.expected."
            )
        padded = [edges + edges[:1] * (width - len(edges)) for edges in places.values()]
        used = torch.tensor([len(edges) for edges in places.values()])
        value_GW = torch.tensor([[values[edge] for edge in edges] for edges in padded])
        distances_KGW = torch.zeros(len(trie.paths), *value_GW.shape)
        for label, path in enumerate(trie.paths):
            for place, edges in enumerate(places.values()):
                taken = [edge for edge in edges if path[edge]]
                if taken:
                    distances_KGW[label, place] = (value_GW[place] - values[taken[0]]).abs()
        self.register_buffer("choices", torch.tensor(padded), persistent=False)
        self.register_buffer("unused", torch.arange(width)[None] >= used[:, None], persistent=False)
        self.register_buffer("distances", distances_KGW, persistent=False)

    def forward(self, edges_BE: Tensor, label_B: Tensor) -> Tensor:
        """The loss of each sample, (B,), in units of the number tokens' values.

        Args:
            edges_BE: Log-probability of each edge's token.
            label_B: Position of the true label.
        """
        scores_BGW = edges_BE[:, self.choices].masked_fill(self.unused, -torch.inf)
        return (scores_BGW.softmax(dim=2) * self.distances[label_B]).sum(dim=(1, 2))
