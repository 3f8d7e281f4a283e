"""The one place that lays out what the backbone reads, in the order of the paper or with the prompt first:

    paper:         bos | opening tag | pseudo tokens | text | closing tag | task prompt | answer
    prompt-first:  bos | task prompt | opening tag | pseudo tokens | text | closing tag | cue | answer

What stands before the pseudo tokens is the same for every sample, so the backbone reads it once (backbones/prefix.py);
with the prompt first that is most of the sequence. The cue is the prompt's last punctuation (`=`, `: `), after which a
label is natural.

The content is padded on the left, so that every sample's answer starts in the same column; padding is masked and
positions are counted from the mask, so it never changes a result.
Shapes: B batch, O opening tokens (0 where the backbone has read them), P pseudo tokens, T text tokens, C closing
tokens, S = O + P + T + C, A answer tokens, d text width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from msekit.model.labels import Encode, Trie
from msekit.model.tags import CLOSING_TAG, OPENING_TAG

Order = Literal["paper", "prompt-first"]
Embed = Callable[[tuple[int, ...]], Tensor]
"""Constant tokens → their embeddings (n, d)."""


def constant_parts(prompt: str, order: Order = "paper") -> tuple[str, str]:
    """What stands before the pseudo tokens (after bos) and after the text."""
    if order == "paper":
        return OPENING_TAG, f"{CLOSING_TAG} {prompt}"
    cue = re.search(r"[\s=:：]*$", prompt).group()  # type: ignore[union-attr]  # matches at least nothing
    return f"{prompt.removesuffix(cue)} {OPENING_TAG}", f"{CLOSING_TAG}{cue}"


def layout_sha256(prompt: str, order: Order = "paper") -> str:
    """What two runs share whose sequences are laid out alike: sha256 of the tags and the prompt."""
    return hashlib.sha256("|".join(constant_parts(prompt, order)).encode()).hexdigest()


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

    def behind(self, prefix: Any) -> Sequence:
        """The same sequence with something already read in front of it."""
        read = prefix.get_seq_length()
        seen = 1 if self.mask.ndim == 2 else 0  # a 4-D mask is added to the scores
        return replace(
            self, mask=F.pad(self.mask, (read, 0), value=seen), positions=self.positions + read, prefix=prefix
        )

    def widened(self, columns: int) -> Sequence:
        """The same sequence padded on the left to so many columns."""
        pad = columns - self.embeddings.shape[1]
        flat = self.mask.ndim == 2
        unseen = 0 if flat else torch.finfo(self.mask.dtype).min
        return replace(
            self,
            embeddings=F.pad(self.embeddings, (0, 0, pad, 0)),
            mask=F.pad(self.mask, (pad, 0) if flat else (pad, 0, pad, 0), value=unseen),
            positions=F.pad(self.positions, (pad, 0)),
        )

    def first(self, samples: int) -> Sequence:
        """The first samples alone."""
        head = slice(samples)
        return replace(self, embeddings=self.embeddings[head], mask=self.mask[head], positions=self.positions[head])


def join(sequences: list[Sequence]) -> Sequence:
    """Several batches as one, shorter sequences padded further on the left; all with the same number of answers."""
    longest = max(sequence.embeddings.shape[1] for sequence in sequences)
    (answers,) = {sequence.answers for sequence in sequences}
    even = [sequence.widened(longest) for sequence in sequences]
    return Sequence(
        torch.cat([sequence.embeddings for sequence in even]),
        torch.cat([sequence.mask for sequence in even]),
        torch.cat([sequence.positions for sequence in even]),
        answers,
    )


class PromptLayout:
    """The constant parts of the sequence, in tokens.

    Args:
        encode: Text → tokens, without special tokens.
        bos: Tokens that open every sequence; may be empty.
        prompt: The task prompt.
        order: `paper` or `prompt-first`.
    """

    def __init__(self, encode: Encode, bos: list[int], prompt: str, order: Order = "paper") -> None:
        opening, closing = constant_parts(prompt, order)
        self.order = order
        self.opening = [*bos, *encode(opening)]
        self.closing = encode(closing)
        self.sha256 = layout_sha256(prompt, order)

    def content(
        self, embed: Embed, pseudo_BPd: Tensor, text_BTd: Tensor, text_lengths_B: Tensor, opening: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Join all parts but the answer, padded on the left.

        Args:
            embed: Constant tokens → embeddings of the backbone.
            pseudo_BPd: Pseudo tokens, in the backbone's dtype.
            text_BTd: Embedded text, padded on the right.
            text_lengths_B: True lengths.
            opening: Begin with the opening part; not where the backbone has read it.

        Returns:
            Embeddings (B, S, d) and mask (B, S).
        """
        size, device = len(text_BTd), text_BTd.device
        opening_BOd, closing_BCd = (
            embed(tuple(ids)).expand(size, -1, -1) for ids in (self.opening if opening else (), self.closing)
        )
        joined_BSd = torch.cat([opening_BOd, pseudo_BPd, text_BTd, closing_BCd], dim=1)
        column_S = torch.arange(joined_BSd.shape[1], device=device)
        padding_B1 = (text_BTd.shape[1] - text_lengths_B)[:, None]
        # the closing part stays where it is; all before it moves right over the text's padding
        source_BS = torch.where(column_S >= len(column_S) - len(self.closing), column_S, column_S - padding_B1)
        rows_B1 = torch.arange(size, device=device)[:, None]
        return joined_BSd[rows_B1, source_BS.clamp(min=0)], (column_S >= padding_B1).long()

    @staticmethod
    def with_answers(content_BSd: Tensor, mask_BS: Tensor, answer_BAd: Tensor, answer_lengths_B: Tensor) -> Sequence:
        """Append each sample's answer (its label without the last token), as training reads it."""
        column_A = torch.arange(answer_BAd.shape[1], device=mask_BS.device)
        mask = torch.cat([mask_BS, (column_A < answer_lengths_B[:, None]).long()], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return Sequence(torch.cat([content_BSd, answer_BAd], dim=1), mask, positions, answer_BAd.shape[1] + 1)

    @staticmethod
    def with_trie(content_BSd: Tensor, mask_BS: Tensor, embed: Embed, trie: Trie) -> Sequence:
        """Append the trie's inner nodes, each seeing the content and its own ancestors alone.

        One pass then gives the next-token logits at every place an answer can reach.
        """
        nodes = len(trie.inner) - 1
        if not nodes:  # every label is one token: nothing to append
            return PromptLayout.with_answers(content_BSd, mask_BS, content_BSd[:, :0], mask_BS[:, 0] * 0)
        device = mask_BS.device
        node_Ad = embed(tuple(trie.token[trie.inner[1:] - 1].tolist()))
        embeddings = torch.cat([content_BSd, node_Ad.expand(len(content_BSd), -1, -1)], dim=1)
        content, total = mask_BS.shape[1], embeddings.shape[1]
        visible = torch.ones(total, total, dtype=torch.bool, device=device).tril()
        visible[content:, content:] = torch.from_numpy(trie.family).to(device)
        real = torch.cat([mask_BS.bool(), mask_BS.new_ones(len(mask_BS), nodes).bool()], dim=1)
        allowed = visible[None, None] & real[:, None, None, :]  # (B, 1, S + A, S + A)
        mask = torch.zeros(allowed.shape, dtype=embeddings.dtype, device=device)
        mask.masked_fill_(~allowed, torch.finfo(embeddings.dtype).min)
        depth_A = torch.from_numpy(trie.family.sum(axis=1)).to(device)  # a node is among its own ancestors
        content_positions = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
        node_positions = mask_BS.sum(dim=1, keepdim=True) - 1 + depth_A
        return Sequence(embeddings, mask, torch.cat([content_positions, node_positions], dim=1), nodes + 1)
