"""Sequence: what a backbone reads, as embeddings with a mask, positions and a prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def scores_mask(seen_B1SK: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores so that rows (S) see only some keys (K), of which the last are their own.

    Every row sees itself too, padding that is to see nothing: its output is never read, and kernels have no softmax of
    nothing to take, whose gradient some of them get wrong.
    """
    own, keys = seen_B1SK.shape[-2:]
    itself_SK = torch.eye(own, dtype=torch.bool, device=seen_B1SK.device)
    seen_B1SK = seen_B1SK | F.pad(itself_SK, (keys - own, 0))
    mask = torch.zeros(seen_B1SK.shape, dtype=dtype, device=seen_B1SK.device)
    # the least finite number, not -inf: the same for every kernel
    return mask.masked_fill_(~seen_B1SK, torch.finfo(dtype).min)


@dataclass
class Sequence:
    """A laid-out batch, ready for the backbone."""

    embeddings: Tensor
    """(B, S + A, d)."""
    mask: Tensor
    """(B, S + A) int64, 1 where something real stands; or (B, 1, S + A, S + A) float, added to attention scores."""
    positions: Tensor
    """(B, S + A) int64."""
    answers: int
    """Last columns whose next-token logits are wanted: A + 1, from the prompt's last token on."""
    prefix: Any = None
    """Keys and values of what stands before, if the backbone has read it; mask and positions then count it."""
    tree: Tensor | None = None
    """(A, A) bool, on the host: which of the last A columns, nodes of a label trie, see which; None for a sequence."""

    def behind(self, prefix: Any) -> Sequence:
        """The same sequence with something already read in front of it."""
        read = prefix.get_seq_length()
        seen = 1 if self.mask.ndim == 2 else 0  # a 4-D mask is added to the scores
        return replace(
            self, mask=F.pad(self.mask, (read, 0), value=seen), positions=self.positions + read, prefix=prefix
        )

    def widened(self, columns: int) -> Sequence:
        """The same sequence padded on the left to so many columns, behind its prefix if it has one."""
        pad = columns - self.embeddings.shape[1]
        read = 0 if self.prefix is None else self.prefix.get_seq_length()
        flat = self.mask.ndim == 2
        prefix, own = self.mask[..., :read], self.mask[..., read:]
        if flat:
            own = F.pad(own, (pad, 0))
        else:  # new rows see the prefix, as every row does, and themselves
            prefix, own = F.pad(prefix, (0, 0, pad, 0)), F.pad(own, (pad, 0, pad, 0), value=torch.finfo(own.dtype).min)
            own.diagonal(dim1=-2, dim2=-1)[..., :pad] = 0
        return replace(
            self,
            embeddings=F.pad(self.embeddings, (0, 0, pad, 0)),
            mask=torch.cat([prefix, own], dim=-1) if read else own,
            positions=F.pad(self.positions, (pad, 0), value=read),
        )

    def aligned(self, multiple: int) -> Sequence:
        """The same sequence padded so that as many keys as a multiple are seen, the prefix's among them."""
        keys, columns = self.mask.shape[-1], self.embeddings.shape[1]
        return self.widened(columns + -keys % multiple)

    def with_scores_mask(self) -> Sequence:
        """The same sequence with a mask of scores in place of one of columns: a column sees itself and whatever real
        stands before it."""
        if self.mask.ndim == 4:
            return self
        own, keys = self.embeddings.shape[1], self.mask.shape[1]
        column_K = torch.arange(keys, device=self.mask.device)
        row_S1 = column_K[keys - own :, None]
        seen_B1SK = (column_K <= row_S1) & self.mask[:, None, None].bool()
        return replace(self, mask=scores_mask(seen_B1SK, self.embeddings.dtype))

    def first(self, samples: int) -> Sequence:
        """The first samples alone."""
        head = slice(samples)
        return replace(self, embeddings=self.embeddings[head], mask=self.mask[head], positions=self.positions[head])


Pass = Callable[[Sequence], Tensor]
"""Sequence → next-token logits of its last `answers` columns, (B, answers, V)."""


def join(sequences: list[Sequence]) -> Sequence:
    """Several batches as one, shorter sequences padded further on the left; all with the same answers' columns."""
    longest = max(sequence.embeddings.shape[1] for sequence in sequences)
    (answers,) = {sequence.answers for sequence in sequences}
    even = [sequence.widened(longest) for sequence in sequences]
    return Sequence(
        torch.cat([sequence.embeddings for sequence in even]),
        torch.cat([sequence.mask for sequence in even]),
        torch.cat([sequence.positions for sequence in even]),
        answers,
        tree=even[0].tree,
    )
