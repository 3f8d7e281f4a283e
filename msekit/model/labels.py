"""LabelSpace: label ⇄ text ⇄ tokens, the trie of all labels' tokens, scores and point estimates.

An answer is a path of the trie, so no answer is ever unparsable. Shapes: B batch, K labels, E edges of the trie (one
per node but the root), M inner nodes (those with children; the first is the root).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError
from msekit.settings.choices import Estimate

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Trie:
    """The labels' token sequences as a tree. Node 0 is the root; edge e leads to node e + 1."""

    token: np.ndarray
    """(E,) token on the edge."""
    parent: np.ndarray
    """(E,) node that the edge leaves."""
    inner: np.ndarray
    """(M,) nodes with children, parents before children, the root first."""
    paths: np.ndarray
    """(K, E) float32, 1 where the edge lies on the label's path."""

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> Trie:
        """Join token sequences, none of which is a prefix of another."""
        edges: dict[tuple[int, int], int] = {}  # (parent node, token) -> node
        paths: list[list[int]] = []
        for sequence in sequences:
            node, path = 0, []
            for token in sequence:
                node = edges.setdefault((node, token), len(edges) + 1)
                path.append(node - 1)
            paths.append(path)
        indicator = np.zeros((len(sequences), len(edges)), dtype=np.float32)
        for label, path in enumerate(paths):
            indicator[label, path] = 1
        parents = np.array([parent for parent, _ in edges])
        return cls(np.array([token for _, token in edges]), parents, np.unique(parents), indicator)

    @cached_property
    def edge_row(self) -> np.ndarray:
        """(E,) each edge's parent, as a row of the inner nodes: where the logits of its token are."""
        return np.searchsorted(self.inner, self.parent)

    @cached_property
    def family(self) -> np.ndarray:
        """(M - 1, M - 1) bool over the inner nodes but the root: whether the column's node is the row's or above it."""
        nodes = self.inner[1:].tolist()
        above = [[other in self.ancestors(node) for other in nodes] for node in nodes]
        return np.array(above, dtype=bool).reshape(len(nodes), len(nodes))

    def ancestors(self, node: int) -> list[int]:
        """A node, its parent, and so on, without the root."""
        return [] if node == 0 else [node, *self.ancestors(int(self.parent[node - 1]))]


class LabelSpace:
    """All labels of a data set, as a tokenizer writes them.

    Intensities are the one-decimal grid of the range. Labels from 0 upwards carry a `+` if the tokenizer writes 1.0 and
    -1.0 (or any such pair) in different numbers of tokens. Where the tokens of a label are the beginning of another's,
    every label gets an end token.

    Args:
        spec: The data set.
        encode: Text → tokens, without special tokens.
        end: The tokenizer's end token.
    """

    def __init__(self, spec: DatasetSpec, encode: Encode, end: int) -> None:
        if spec.range is not None:
            self.values = np.array(spec.grid)
            self.low = round(spec.range[0] * 10)
            tenths = range(self.low, self.low + len(self.values))
            mirrored = [tenth for tenth in tenths if tenth > 0 and -tenth in tenths]
            signed = any(len(encode(f"{tenth / 10:.1f}")) != len(encode(f"{-tenth / 10:.1f}")) for tenth in mirrored)
            self.texts = [f"{value:+.1f}" if signed else f"{value:.1f}" for value in self.values]
            self.names = self.texts
        else:
            assert spec.labels is not None
            self.low = 0
            self.values = np.arange(len(spec.labels), dtype=np.float64)
            self.texts = [str(number) for number in range(len(spec.labels))]
            self.names = list(spec.labels)
        self.task = spec.task
        self.tokens = [encode(text) for text in self.texts]
        if _some_prefix(self.tokens):
            self.tokens = [[*tokens, end] for tokens in self.tokens]
        if len({tuple(tokens) for tokens in self.tokens}) < len(self.tokens):
            raise MsekitError("the tokenizer writes two labels alike", where=", ".join(self.texts))
        self.trie = Trie.build(self.tokens)

    def __len__(self) -> int:
        return len(self.texts)

    def indices(self, truths: np.ndarray) -> np.ndarray:
        """Class numbers or intensities → positions in the space; intensities by the nearest grid value. (N,) → (N,).

        A sample without a label (NaN) is given the first position, which nothing of it may be computed from.
        """
        truths = np.where(np.isnan(truths), self.low / 10, truths)
        if self.task == "erc":
            return truths.astype(np.int64)
        return np.clip(np.rint(truths * 10).astype(np.int64) - self.low, 0, len(self) - 1)

    def log_probabilities(self, edges_BE: np.ndarray) -> np.ndarray:
        """Log-probability of each label's whole token sequence, from those of the trie's edges. (B, E) → (B, K)."""
        return edges_BE @ self.trie.paths.T

    def distribution(self, edges_BE: np.ndarray) -> np.ndarray:
        """Probabilities normalised over the labels. (B, E) → (B, K)."""
        scores_BK = self.log_probabilities(edges_BE).astype(np.float64)
        scores_BK -= scores_BK.max(axis=1, keepdims=True)
        weights_BK = np.exp(scores_BK)
        return weights_BK / weights_BK.sum(axis=1, keepdims=True)

    def predict(self, edges_BE: np.ndarray, estimate: Estimate) -> np.ndarray:
        """Point estimates.

        Args:
            edges_BE: Log-probability of each edge's token after the prompt and the path to the edge.
            estimate: `greedy` walks the trie from the root (generation that may write labels only); `argmax` is the
                most probable label; `mean` and `median` are of the distribution (intensities only).

        Returns:
            (B,) values: intensities, or class numbers.

        Raises:
            MsekitError: `mean` or `median` of classes, or scores that are no numbers.
        """
        check_estimate(self.task, estimate)
        if np.isnan(edges_BE).any():
            raise no_numbers()
        if estimate == "greedy":
            return self.values[self._greedy(edges_BE)]
        return self.point(self.distribution(edges_BE), estimate)

    def point(self, distribution_BK: np.ndarray, estimate: Estimate) -> np.ndarray:
        """`argmax`, `mean` or `median` of a distribution over the labels. (B, K) → (B,)."""
        if estimate == "argmax":
            return self.values[distribution_BK.argmax(axis=1)]
        if estimate == "mean":
            return distribution_BK @ self.values
        # the first label whose cumulated probability reaches one half; rounding may leave the last sum just below it
        return self.values[(distribution_BK.cumsum(axis=1) < 0.5).sum(axis=1).clip(max=len(self) - 1)]

    def _greedy(self, edges_BE: np.ndarray) -> np.ndarray:
        """Walk the trie from the root, at each node along the most probable edge. (B, E) → (B,) positions of labels.

        All samples take a step at a time; a sample that has reached a leaf stays there until the last one has.
        """
        node_B = np.zeros(len(edges_BE), dtype=np.int64)  # where each sample stands: the root
        while True:
            leaving_BE = self.trie.parent[None] == node_B[:, None]  # the edges that leave each sample's node
            moving_B = leaving_BE.any(axis=1)  # no edge leaves a leaf
            if not moving_B.any():
                return (self._leaves[None] == node_B[:, None]).argmax(axis=1)
            best_B = np.where(leaving_BE, edges_BE, -np.inf).argmax(axis=1)
            node_B = np.where(moving_B, best_B + 1, node_B)  # edge e leads to node e + 1

    @cached_property
    def _leaves(self) -> np.ndarray:
        """(K,) node at the end of each label's path: edges are numbered parents first, so its last edge leads there."""
        return np.array([np.flatnonzero(path)[-1] + 1 for path in self.trie.paths])


def no_numbers() -> MsekitError:
    """The refusal of scores that are NaN: whatever were made of them would be no answer."""
    return MsekitError(
        "the label scores are no numbers", fix="The adapter's values are beyond what it can compute with."
    )


def check_estimate(task: str, estimate: str) -> None:
    """Refuse an estimate that means nothing for the task.

    Raises:
        MsekitError: `mean` or `median` of emotions.
    """
    if task == "erc" and estimate in ("mean", "median"):
        raise MsekitError(f"estimate '{estimate}' is for intensities", fix="Use greedy or argmax for emotions.")


def _some_prefix(sequences: Sequence[Sequence[int]]) -> bool:
    """Whether a sequence is the beginning of another; sorted, such a pair has a neighbour pair like it."""
    ordered = sorted(tuple(sequence) for sequence in sequences)
    return any(longer[: len(shorter)] == shorter for shorter, longer in pairwise(ordered))
