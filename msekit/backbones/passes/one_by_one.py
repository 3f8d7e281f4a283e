"""Longer ways for architectures that shorter ones are wrong for: a label at a time, a sample at a time.

They are also what every trial compares with: nothing in them rests on a mask.

Shapes: B batch, S columns, A columns of a label trie's nodes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from msekit.backbones.sequence import Pass, Sequence


def by_branch(compute: Pass) -> Pass:
    """A pass that reads each branch of a label trie by itself, behind the content, instead of all of them at once."""

    def run(sequence: Sequence) -> Tensor:
        if sequence.tree is None:
            return compute(sequence)
        tree_AA = sequence.tree.bool()
        content = sequence.embeddings.shape[1] - len(tree_AA)
        read = sequence.mask.shape[-1] - sequence.embeddings.shape[1]
        # the content's last column sees all that is real of it
        seen_BT = (sequence.mask[:, 0, content - 1, : read + content] == 0).long()
        logits: dict[int, Tensor] = {}
        for leaf in torch.nonzero(tree_AA.sum(dim=0) == 1).flatten().tolist():
            path = torch.nonzero(tree_AA[leaf]).flatten()
            path = path[tree_AA.sum(dim=1)[path].argsort()]  # from the content on, whatever their columns
            columns = torch.cat([torch.arange(content), content + path]).to(seen_BT.device)
            branch = replace(
                sequence,
                embeddings=sequence.embeddings[:, columns],
                mask=torch.cat([seen_BT, seen_BT.new_ones(len(seen_BT), len(path))], dim=1),
                positions=sequence.positions[:, columns],
                answers=len(path) + 1,
                tree=None,
            )
            of_branch = compute(branch).unbind(dim=1)
            for row, each in zip([0, *(path + 1).tolist()], of_branch, strict=True):
                logits.setdefault(row, each)
        last = range(len(tree_AA) + 1 - sequence.answers, len(tree_AA) + 1)
        return torch.stack([logits[row] for row in last], dim=1)

    return run


def alone(compute: Pass) -> Pass:
    """A pass that reads each sample by itself, without padding in front of it; under masks of columns alone."""

    def run(sequence: Sequence) -> Tensor:
        read = sequence.mask.shape[1] - sequence.embeddings.shape[1]
        starts = sequence.mask[:, read:].argmax(dim=1).tolist()
        logits = []
        for sample, start in enumerate(starts):
            own = slice(sample, sample + 1)
            embeddings_1Sd = sequence.embeddings[own, start:]
            mask = sequence.mask.new_ones(1, read + embeddings_1Sd.shape[1])
            positions = sequence.positions[own, start:]
            logits.append(compute(replace(sequence, embeddings=embeddings_1Sd, mask=mask, positions=positions)))
        return torch.cat(logits)

    return run


def unread(compute: Pass, opening_1Pd: Tensor) -> Pass:
    """A pass that reads what is in front of a sequence anew, instead of taking keys and values of it."""

    def run(sequence: Sequence) -> Tensor:
        size = len(sequence.embeddings)
        positions_P = torch.arange(opening_1Pd.shape[1], device=sequence.positions.device)
        return compute(
            replace(
                sequence,
                embeddings=torch.cat([opening_1Pd.expand(size, -1, -1), sequence.embeddings], dim=1),
                positions=torch.cat([positions_P.expand(size, -1), sequence.positions], dim=1),
                prefix=None,
            )
        )

    return run
