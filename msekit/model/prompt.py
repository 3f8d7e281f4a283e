"""PromptLayout: the sequence that the backbone reads, in the order of the paper or with the prompt first:

    paper:         bos | opening tag | pseudo tokens | text | closing tag | task prompt | answer
    prompt-first:  bos | task prompt | opening tag | pseudo tokens | text | closing tag | cue | answer

No other file lays out a sequence. What stands before the pseudo tokens is the same for every sample, so the backbone
reads it once (`backbones/passes/prefix.py`); with the prompt first that is most of the sequence. The cue is the last
punctuation of the prompt (`=`, `: `), after which a label comes naturally.

The content is padded on the left, so that every sample's answer starts in the same column. Padding is masked and
positions are counted from the mask, so padding never changes a result.

Shapes: B batch, O opening tokens (0 where the backbone has read them), P pseudo tokens, T text tokens, C closing
tokens, S = O + P + T + C, A answer tokens or inner nodes of the label trie, d text width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from msekit.backbones.sequence import Sequence, scores_mask
from msekit.model.answers import Nodes
from msekit.model.labels import Encode
from msekit.model.wording import constant_parts, layout_sha256
from msekit.settings.choices import Layout

Embed = Callable[[tuple[int, ...]], Tensor]
"""Constant tokens → their embeddings (n, d)."""


class PromptLayout:
    """The constant parts of the sequence, in tokens.

    Args:
        encode: Text → tokens, without special tokens.
        bos: Tokens that open every sequence; may be empty.
        prompt: The task prompt.
        order: `paper` or `prompt-first`.
        cues: Of several targets, each one's own words behind the content (`answers.py`), which then has no cue.
    """

    def __init__(
        self, encode: Encode, bos: list[int], prompt: str, order: Layout = "paper", cues: tuple[str, ...] = ()
    ) -> None:
        opening, closing = constant_parts(prompt, order, bool(cues))
        self.order, self.cues = order, cues
        self.opening = [*bos, *encode(opening)]
        self.closing = encode(closing)
        self.sha256 = layout_sha256(prompt, order, cues)

    def content(
        self, embed: Embed, pseudo_BPd: Tensor, text_BTd: Tensor, text_lengths_B: Tensor, opening: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Join all parts but the answer, and pad them on the left.

        Args:
            embed: Constant tokens → embeddings of the backbone.
            pseudo_BPd: Pseudo tokens, in the backbone's dtype.
            text_BTd: Embedded text, padded on the right.
            text_lengths_B: True lengths.
            opening: Whether the sequence begins with the opening part; False where the backbone has read it.

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
        # The text is padded on its right, in the middle of the sequence. The closing part stays where it is, and all
        # before it moves right by the padding: column s then takes what stood in column s - padding.
        source_BS = torch.where(column_S >= len(column_S) - len(self.closing), column_S, column_S - padding_B1)
        rows_B1 = torch.arange(size, device=device)[:, None]
        return joined_BSd[rows_B1, source_BS.clamp(min=0)], (column_S >= padding_B1).long()

    @staticmethod
    def with_answers(content_BSd: Tensor, mask_BS: Tensor, answer_BAd: Tensor, answer_lengths_B: Tensor) -> Sequence:
        """Append each sample's answer, as training reads it: its label without the last token, which nothing follows.

        The answer's columns are padded on the right; the mask hides that padding, and no loss is taken there.
        """
        column_A = torch.arange(answer_BAd.shape[1], device=mask_BS.device)
        mask = torch.cat([mask_BS, (column_A < answer_lengths_B[:, None]).long()], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return Sequence(torch.cat([content_BSd, answer_BAd], dim=1), mask, positions, answer_BAd.shape[1] + 1)

    @staticmethod
    def with_tree(content_BSd: Tensor, mask_BS: Tensor, embed: Embed, tree: Nodes, family_AA: Tensor) -> Sequence:
        """Append the inner nodes of the label trie, each of which attends to the content and its own ancestors alone.

        Scored label by label, K labels would read the content K times. Here one pass gives the next-token logits at
        every place that an answer can reach: the root's in the content's last column, and each other inner node's in a
        column of its own. For labels of the tokens `- 1`, `- 2`, `+ 1` the inner nodes are the root, `-` and `+`, and
        row by row the mask lets them attend to:

                    content  -  +
            content causal   .  .
            -       all      x  .
            +       all      .  x

        Positions follow the depth in the tree, not the column: `-` and `+` both stand right behind the content, as they
        would if each were read alone. A sequence per label gives the same logits up to rounding. Several targets are
        branches behind their own words (`answers.py`). `family_AA` is the tree's own, where the content is.
        """
        nodes = len(tree.token)
        if not nodes:  # every label is one token: nothing to append
            return PromptLayout.with_answers(content_BSd, mask_BS, content_BSd[:, :0], mask_BS[:, 0] * 0)
        device = mask_BS.device
        node_Ad = embed(tree.token)
        embeddings = torch.cat([content_BSd, node_Ad.expand(len(content_BSd), -1, -1)], dim=1)
        content, total = mask_BS.shape[1], embeddings.shape[1]
        visible = torch.ones(total, total, dtype=torch.bool, device=device).tril()  # rows attend to columns
        visible[content:, content:] = family_AA  # itself and its ancestors
        real = torch.cat([mask_BS.bool(), mask_BS.new_ones(len(mask_BS), nodes).bool()], dim=1)  # (B, S + A)
        allowed = visible[None, None] & real[:, None, None, :]  # (B, 1, S + A, S + A)
        mask = scores_mask(allowed, embeddings.dtype)
        depth_A = family_AA.sum(dim=1)  # 1 below the root: it counts itself
        content_positions = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
        node_positions = mask_BS.sum(dim=1, keepdim=True) - 1 + depth_A
        positions = torch.cat([content_positions, node_positions], dim=1)
        return Sequence(embeddings, mask, positions, tree.scored, tree=torch.from_numpy(tree.family))
