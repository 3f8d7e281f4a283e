"""A trial of a small LLM: whether it reads padded batches and label tries as single samples and labels, and what a
shorter way through it must give.

The truth is transformers' own pass of one sample, without padding, with one label behind it and nothing read before.

Shapes: B batch, S columns, P columns of a prefix, A columns of a label trie's nodes, d width of the model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msekit.backbones.passes.agree import APART, difference, said, value_and_gradient
from msekit.backbones.passes.one_by_one import alone, by_branch, unread
from msekit.backbones.passes.plain import plain_pass
from msekit.backbones.passes.prefix import read_prefix
from msekit.backbones.sequence import Pass, Sequence

Case = tuple[Sequence, tuple[Tensor, Tensor]]
"""What a trial reads, and the logits and the gradient that are right."""
_CONTENT, _OPENING = 7, 3
"""Columns of a trial's content, and of what may be in front of it."""
_FAMILY = ((1, 0, 0), (0, 1, 0), (0, 1, 1))
"""Its trie: the root has two children, the second has one."""


class NotByEmbeddingsError(Exception):
    """An architecture that pseudo tokens cannot be given to, with the reason."""


class Trial:
    """A model's plain pass against the truth.

    Args:
        model: A twin, or a model in fp32.
        scale: RMS of the embeddings that it reads.
        apart: Largest distance, as for `difference`.

    Raises:
        NotByEmbeddingsError: It reads more of a token than its embedding.
        Exception: Whatever an architecture raises that does not take what a trial reads.
    """

    padding: str | None
    """Why a padded batch cannot be read at once; None where it can."""
    tree: str | None
    """Why a label trie cannot be read at once; None where it can."""

    def __init__(self, model: Any, scale: float = 1.0, apart: float = APART, no_tree: str | None = None) -> None:
        self.model, self._plain, self._apart = model, plain_pass(model), apart
        sequences, self._opening_1Pd = trial_sequences(model, scale)
        self._check_embeddings()
        truth = by_branch(alone(self._plain))
        self._cases = [(sequence, value_and_gradient(truth, sequence)) for sequence in sequences]
        self._behind: list[Case] = []
        flat, tree = self._cases
        self.padding = self._tried(self._plain, [flat])
        self.tree = self.padding or no_tree or self._tried(self._plain, [tree])

    @torch.no_grad()
    def _check_embeddings(self) -> None:
        """Refuse a model that reads tokens otherwise than their embeddings.

        Raises:
            NotByEmbeddingsError: Some figures of its tokens are not in the embeddings that it is given here.
        """
        table = self.model.get_input_embeddings()
        ids_1S = torch.arange(1, _CONTENT, device=table.weight.device)[None] % table.num_embeddings
        positions_1S = torch.arange(ids_1S.shape[1], device=ids_1S.device)[None]
        mine = self._plain(Sequence(table(ids_1S), torch.ones_like(ids_1S), positions_1S, 1))
        plain = self.model(input_ids=ids_1S, position_ids=positions_1S, use_cache=False).logits[:, -1:]
        if not (mine - plain).norm() <= self._apart * plain.norm():
            raise NotByEmbeddingsError(f"{type(self.model).__name__} reads more of a token than its embedding")

    def around(self, compute: Pass) -> Pass:
        """A pass that reads one by one what cannot be read at once."""
        return around(compute, self.padding, self.tree)

    def prefix(self) -> str | None:
        """Why its pass cannot go on behind a prefix; None where it can, and other ways are then tried behind one."""
        try:
            cache = read_prefix(self.model, self._opening_1Pd)
            truth = by_branch(alone(unread(self._plain, self._opening_1Pd)))
            sequences = [sequence.behind(cache) for sequence, _ in self._cases]
            behind = [(sequence, value_and_gradient(truth, sequence)) for sequence in sequences]
        except Exception as error:  # whatever an architecture raises that is asked for what it does not do
            return said(error)
        reason = self.of(self._plain, behind)
        self._behind = [] if reason else behind
        return reason

    def of(self, compute: Pass, cases: list[Case] | None = None) -> str | None:
        """Why a way is not right; None where it is."""
        return self._tried(self.around(compute), self._cases + self._behind if cases is None else cases)

    def _tried(self, compute: Pass, cases: list[Case]) -> str | None:
        try:
            pairs = ((value_and_gradient(compute, sequence), exact) for sequence, exact in cases)
            return next(filter(None, (difference(mine, exact, self._apart) for mine, exact in pairs)), None)
        except Exception as error:  # whatever an architecture raises that is asked for what it does not do
            return said(error)


def around(compute: Pass, padding: str | None, tree: str | None) -> Pass:
    """A pass that reads one by one what there is a reason not to read at once."""
    compute = alone(compute) if padding else compute
    return by_branch(compute) if tree else compute


FAR = 0.5
"""RMS of the difference of two ways' logits, as a share of the plain ones' deviation, by a model's own weights as they
are held: rounding in 16 bit is .04 to .15, keys that are missing or of another text are 1 and more."""


@torch.no_grad()
def logits_as_loaded(model: Any, run: Pass, behind: bool = False) -> Tensor:
    """Logits (B, answers, V) of random tokens by a model's own weights; with the first of them read before or not."""
    table = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(1)
    ids_BS = torch.randint(table.num_embeddings, (2, _OPENING + _CONTENT), generator=generator)
    ids_BS[1, :_OPENING] = ids_BS[0, :_OPENING]
    x_BSd = table(ids_BS.to(table.weight.device))
    positions_BS = torch.arange(ids_BS.shape[1], device=x_BSd.device).expand(2, -1)
    if not behind:
        return run(Sequence(x_BSd, torch.ones_like(positions_BS), positions_BS, 2)).float()
    positions_BS = positions_BS[:, :-_OPENING]
    rest = Sequence(x_BSd[:, _OPENING:], torch.ones_like(positions_BS), positions_BS, 2)
    return run(rest.behind(read_prefix(model, x_BSd[:1, :_OPENING]))).float()


def far_apart(mine: Tensor, plain: Tensor) -> str | None:
    """Why logits are not those of the plain pass, whatever the precision; None where the plain ones are not finite."""
    apart, deviation = (mine - plain).pow(2).mean().sqrt(), plain.std()
    if not plain.isfinite().all() or apart <= FAR * deviation:
        return None
    return f"with the LLM's own weights its logits are {apart / deviation:.2g} of their deviation off"


def scale_of(model: Any) -> float:
    """RMS of what a model reads of its first tokens."""
    table = model.get_input_embeddings()
    few = torch.arange(min(table.num_embeddings, 256), device=table.weight.device)
    return float(table(few).float().pow(2).mean().sqrt())


def trial_sequences(model: Any, scale: float = 1.0) -> tuple[list[Sequence], Tensor]:
    """Two samples, the second padded by a column: under a mask of columns, (B, S), and with a label trie's nodes behind
    them, under one of scores, (B, 1, S, S); and embeddings (1, P, d) that may be in front of them."""
    table = model.get_input_embeddings()
    device, dtype = table.weight.device, table.weight.dtype
    generator = torch.Generator().manual_seed(1)  # not that of a twin's weights
    nodes = len(_FAMILY)
    x_BSd = scale * torch.randn(2, _CONTENT + nodes, table.embedding_dim, generator=generator)
    opening_1Pd = scale * torch.randn(1, _OPENING, table.embedding_dim, generator=generator)
    mask_BS = torch.ones(2, _CONTENT + nodes, dtype=torch.long)
    mask_BS[1, 0] = 0
    positions_BS = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
    family_AA = torch.tensor(_FAMILY, dtype=torch.bool)
    seen_SS = torch.ones(_CONTENT + nodes, _CONTENT + nodes, dtype=torch.bool).tril()
    seen_SS[_CONTENT:, _CONTENT:] = family_AA
    seen_B1SS = seen_SS & mask_BS[:, None, None, :].bool()
    unseen_B1SS = torch.zeros(seen_B1SS.shape, dtype=dtype).masked_fill_(~seen_B1SS, torch.finfo(dtype).min)
    tree_BS = positions_BS.clone()
    tree_BS[:, _CONTENT:] = positions_BS[:, _CONTENT - 1 : _CONTENT] + family_AA.sum(dim=1)
    x_BSd, mask_BS, positions_BS = x_BSd.to(device, dtype), mask_BS.to(device), positions_BS.to(device)
    flat = Sequence(x_BSd[:, :-1], mask_BS[:, :-1], positions_BS[:, :-1], 2)
    tree = replace(flat, embeddings=x_BSd, mask=unseen_B1SS.to(device), positions=tree_BS.to(device))
    return [flat, replace(tree, answers=nodes + 1, tree=family_AA)], opening_1Pd.to(device, dtype)
