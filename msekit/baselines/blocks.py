"""Layers that several baselines are built from: attention from one sequence to another, packed LSTMs, pooling, heads.

Nowhere does padding reach a result, and what is attended to may be absent: it then adds nothing.

Shapes: B batch, T steps of the target, S steps of the source, d width, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes, real_steps

WORD = 64
"""Width of a word's embedding."""


class Words(nn.Module):
    """The text token by token: learned embeddings of words, or frozen states, each normed (they differ in size)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.width = sizes.text_width or WORD
        self.table = None if sizes.text_width else nn.Embedding(sizes.vocabulary, WORD, padding_idx=0)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, T, width)."""
        if self.table is not None:
            return self.table(batch.text_ids)
        assert batch.tokens is not None
        return F.layer_norm(batch.tokens, batch.tokens.shape[-1:])


class Sentence(nn.Module):
    """The text as one vector: the mean of its words' embeddings, or a frozen state, normed."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.width = sizes.text_width or WORD
        self.words = None if sizes.text_width else Words(sizes)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, width)."""
        if self.words is not None:
            return masked_mean(self.words(batch), batch.text_mask.bool())
        assert batch.sentence is not None
        return F.layer_norm(batch.sentence, batch.sentence.shape[-1:])


def masked_mean(x_BTd: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, d), over the steps of the mask; zero where there is none."""
    weights_BT1 = mask_BT[..., None].to(x_BTd.dtype)
    return (x_BTd * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1).clamp(min=1)


def last_real(x_BTd: Tensor, lengths_B: Tensor) -> Tensor:
    """(B, d), the last of a sequence's own steps; zero for a sequence of none."""
    last_B11 = (lengths_B - 1).clamp(min=0)[:, None, None]
    return x_BTd.gather(1, last_B11.expand(-1, 1, x_BTd.shape[2])).squeeze(1) * (lengths_B > 0)[:, None]


class LearnedPool(nn.Module):
    """A weighted mean over a sequence's steps; a learned vector scores them, a softmax makes the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, x_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, d); zero where the mask is empty."""
        scores_BT = self.score(x_BTd).squeeze(-1).masked_fill(~mask_BT, -1e9)
        weights_BT = scores_BT.softmax(dim=1) * mask_BT
        return (weights_BT[..., None] * x_BTd).sum(dim=1)


def mlp(widths: Sequence[int], dropout: float = 0.0, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths, an activation and dropout behind each but the last."""
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.Linear(before, after)]
        if number < len(widths) - 2:
            layers += [activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class LSTMEncoder(nn.Module):
    """An LSTM over a sequence's own steps.

    Args:
        width: D.
        hidden: H, of each direction.
        layers: How many, one above the other.
        two_way: Whether it reads backwards too.
        dropout: Between layers.
        kind: `nn.LSTM` or `nn.GRU`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int = 1,
        two_way: bool = False,
        dropout: float = 0.0,
        kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM,
    ) -> None:
        super().__init__()
        self.rnn = kind(width, hidden, layers, batch_first=True, bidirectional=two_way, dropout=dropout)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, H·directions), and (B, H·directions) the last layer's final states; zero beyond and without steps."""
        if x_BTD.shape[1] == 0:
            x_BTD = x_BTD.new_zeros(len(x_BTD), 1, x_BTD.shape[2])
        packed = pack_padded_sequence(x_BTD, lengths_B.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        states, final = self.rnn(packed)
        states_BTH, _ = pad_packed_sequence(states, batch_first=True, total_length=x_BTD.shape[1])
        final_NBH = final[0] if isinstance(final, tuple) else final
        directions = 2 if self.rnn.bidirectional else 1
        final_BH = final_NBH[-directions:].transpose(0, 1).flatten(1)
        there_B1 = (lengths_B > 0)[:, None]
        return states_BTH * real_steps(lengths_B, states_BTH.shape[1])[..., None], final_BH * there_B1


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017); a target whose source is absent gets zero.

    Args:
        width: d.
        heads: They divide d.
        dropout: Of the weights.
        target_width: Of the queries, if it is another.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, target_width: int | None = None) -> None:
        super().__init__()
        assert width % heads == 0
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(target_width or width, width)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, target_width or width)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, target_BTd: Tensor, source_BSd: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            target_BTd: Queries.
            source_BSd: Keys and values.
            mask: (B, S) or (B, T, S) bool, True where a target may look.

        Returns:
            (B, T, d).
        """
        allowed_B1TS = (mask[:, None] if mask.ndim == 2 else mask)[:, None]
        some_BT1 = allowed_B1TS.any(dim=-1).squeeze(1)[..., None]
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, target_BTd), (self.key, source_BSd), (self.value, source_BSd))
        )
        scores_BhTS = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        weights_BhTS = scores_BhTS.masked_fill(~allowed_B1TS, -1e9).softmax(dim=-1) * allowed_B1TS
        weights_BhTS = F.dropout(weights_BhTS, self.dropout, self.training)
        return self.out((weights_BhTS @ v).transpose(1, 2).flatten(2)) * some_BT1


def positions(x_BTd: Tensor) -> Tensor:
    """(T, d) sinusoids of the steps 1 … T, sines in the first half, cosines in the second."""
    _, steps, width = x_BTd.shape
    half = width // 2
    rates = torch.exp(torch.arange(half, device=x_BTd.device) * -(math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(1, steps + 1, device=x_BTd.device)[:, None] * rates[None]
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width - 2 * half)).to(x_BTd.dtype)


class CrossBlock(nn.Module):
    """x + Drop(Att(LN₀ x, LN₀ s)), then x + Drop(W₂ Drop(ReLU(W₁ LN₁ x))); W₁ has four times the width.

    The block of MulT (its section 3.2): the source is normed by the target's norm.
    """

    def __init__(self, width: int, heads: int, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = dropout

    def forward(self, x_BTd: Tensor, source_BSd: Tensor | None, mask: Tensor) -> Tensor:
        """(B, T, d); without a source x attends to itself."""
        normed = self.norms[0](x_BTd)
        source = normed if source_BSd is None else self.norms[0](source_BSd)
        x_BTd = x_BTd + self._drop(self.attention(normed, source, mask))
        hidden = self._drop(F.relu(self.first(self.norms[1](x_BTd))))
        return x_BTd + self._drop(self.second(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class CrossEncoder(nn.Module):
    """Blocks over a target that look at one source all the way up; scaled inputs with positions, a norm at the end.

    Args:
        width: d.
        heads: Of each block.
        layers: Blocks.
        attention_dropout: Of the attention's weights.
        dropout: Of everything else.
        scaled: Whether inputs are scaled by √d and given positions.
    """

    def __init__(
        self, width: int, heads: int, layers: int, attention_dropout: float, dropout: float, scaled: bool = True
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(width, heads, attention_dropout, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.scaled, self.dropout = scaled, dropout

    def forward(self, target_BTd: Tensor, source_BSd: Tensor | None, mask_BS: Tensor) -> Tensor:
        """(B, T, d); the mask is the source's, or the target's own without a source."""
        x = self._opened(target_BTd)
        source = None if source_BSd is None else self._opened(source_BSd)
        for block in self.blocks:
            x = block(x, source, mask_BS)
        return self.norm(x)

    def _opened(self, x_BTd: Tensor) -> Tensor:
        if self.scaled:
            x_BTd = math.sqrt(x_BTd.shape[-1]) * x_BTd + positions(x_BTd)
        return F.dropout(x_BTd, self.dropout, self.training)


class Projected(nn.Module):
    """Every modality's sequence, mapped to one width.

    Args:
        sizes: Of the data.
        width: d.
        bias: Of the maps.
        text_dropout: Before the text's.
    """

    def __init__(self, sizes: Sizes, width: int, bias: bool = True, text_dropout: float = 0.0) -> None:
        super().__init__()
        self.words, self.text_dropout = Words(sizes), text_dropout
        inputs = {TEXT: self.words.width, **sizes.widths}
        self.maps = nn.ModuleDict({name: nn.Linear(size, width, bias=bias) for name, size in inputs.items()})

    def forward(self, batch: RivalBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """Modality → (B, L, d) and (B,) lengths."""
        found = {TEXT: (F.dropout(self.words(batch), self.text_dropout, self.training), batch.text_lengths)}
        found |= {name: batch.frames(name) for name in self.maps if name != TEXT}
        return {name: (self.maps[name](x_BLD), lengths_B) for name, (x_BLD, lengths_B) in found.items()}
