"""Utterances of a batch ⇄ their dialogues side by side; and a recurrent network over each speaker's own utterances.

Shapes: B utterances, G groups (dialogues, or speakers of dialogues), N utterances of the longest, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msekit.baselines.blocks import LSTMEncoder
from msekit.baselines.rival_batch import RivalBatch


@dataclass(frozen=True)
class Groups:
    """Which group and place each utterance has."""

    row: Tensor
    """(B,) group."""
    column: Tensor
    """(B,) place in it, in the order of the turns."""
    mask: Tensor
    """(G, N) bool, True where a group has an utterance."""

    @classmethod
    def of(cls, group_B: Tensor, turn_B: Tensor) -> Groups:
        """The groups of equal numbers, each in the order of its turns."""
        _, row_B = torch.unique(group_B, return_inverse=True)
        order_B = torch.argsort(row_B * (int(turn_B.max()) + 1) + turn_B, stable=True)
        count_G = torch.bincount(row_B)
        start_G = count_G.cumsum(0) - count_G
        column_B = torch.empty_like(row_B)
        column_B[order_B] = torch.arange(len(row_B), device=row_B.device) - start_G[row_B[order_B]]
        steps_N = torch.arange(int(count_G.max()), device=row_B.device)
        return cls(row_B, column_B, steps_N[None] < count_G[:, None])

    def spread(self, x: Tensor) -> Tensor:
        """(B, …) → (G, N, …), zero where there is no utterance."""
        spread = x.new_zeros(*self.mask.shape, *x.shape[1:])
        spread[self.row, self.column] = x
        return spread

    def back(self, x: Tensor) -> Tensor:
        """(G, N, …) → (B, …)."""
        return x[self.row, self.column]


def dialogues_of(batch: RivalBatch) -> Groups:
    """The dialogues of a batch."""
    assert batch.dialogue is not None
    assert batch.turn is not None
    return Groups.of(batch.dialogue, batch.turn)


def parties_of(batch: RivalBatch) -> Groups:
    """The speakers of its dialogues: each one's own utterances are a group."""
    assert batch.dialogue is not None
    assert batch.turn is not None
    assert batch.party is not None
    return Groups.of(batch.dialogue * (int(batch.party.max()) + 1) + batch.party, batch.turn)


class OverGroups(nn.Module):
    """A two-way recurrent network over the utterances of each group, its states given back to them.

    Args:
        width: Of an utterance.
        hidden: Of each direction.
        layers: One above the other.
        dropout: Between layers.
        kind: `nn.LSTM` or `nn.GRU`.
    """

    def __init__(
        self, width: int, hidden: int, layers: int, dropout: float, kind: type[nn.LSTM] | type[nn.GRU]
    ) -> None:
        super().__init__()
        self.encoder = LSTMEncoder(width, hidden, layers, two_way=True, dropout=dropout, kind=kind)

    def forward(self, x_Bd: Tensor, groups: Groups) -> Tensor:
        """(B, 2·hidden)."""
        states, _ = self.encoder(groups.spread(x_Bd), groups.mask.sum(dim=1))
        return groups.back(states)
