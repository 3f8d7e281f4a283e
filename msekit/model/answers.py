"""Answers: all that a sample is asked, each question with its label space, and the tree of them that one pass scores.

Behind the content a question's own words (its cue) stand as a chain of nodes, and behind them the trie of its labels;
every question is a branch of its own, which sees the content and itself alone:

    content ─┬─ " Emotion (0 calm 1 glad): " ─ {0, 1}
             └─ " Valence (-3.0 to +3.0)="   ─ {+, -} ─ digits

A set of one target is one question whose words stand in the content already: its tree is the trie itself.

Shapes: Q questions, K labels and E edges over all questions, A nodes behind the content, M columns whose logits are
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import Question, behind_the_text, only_one, questions_of
from msekit.model.labels import Encode, LabelSpace
from msekit.settings.choices import Estimate, Layout


@dataclass(frozen=True)
class Asked:
    """A question as the LLM is asked it."""

    question: Question | None
    """None for a label space by itself."""
    space: LabelSpace
    cue: tuple[int, ...]
    """Tokens of its own words; none where they stand in the content."""
    edges: slice
    """Which of the E edges are those of its trie."""
    labels: slice
    """Which of the K labels are its own."""

    @property
    def name(self) -> str:
        """Empty for a set of one target."""
        return "" if self.question is None else self.question.name

    @property
    def target(self) -> str:
        """Whose it is; empty for a set of one target."""
        return "" if self.question is None else self.question.target

    @property
    def label(self) -> str | None:
        """Of a target with labels: which of them it asks."""
        return None if self.question is None else self.question.label

    @property
    def weight(self) -> float:
        """Of its loss."""
        return 1.0 if self.question is None else self.question.weight


@dataclass(frozen=True)
class Nodes:
    """The tree behind the content, as columns: words that are only read, then nodes whose logits are wanted."""

    token: tuple[int, ...]
    """(A,)."""
    family: np.ndarray
    """(A, A) bool: whether the column's node is the row's or above it."""
    scored: int
    """M: the last columns; A + 1 where the content's own last column is one of them."""


class Answers:
    """All questions of a data set.

    Args:
        asked: In the order of a row's numbers.
    """

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.asked = tuple(asked)
        self.nodes, self.edge_row, self.edge_token = _tree(self.asked)

    @classmethod
    def of(cls, spec: DatasetSpec, encode: Encode, end: int, order: Layout = "paper") -> Answers:
        """The questions of a data set.

        Args:
            spec: The data set.
            encode: Text → tokens, without special tokens.
            end: The tokenizer's end token.
            order: Whether the questions' whole wording stands before the text: behind it stand their names alone.
        """
        asked: list[Asked] = []
        for question in questions_of(spec):
            cue = tuple(encode(text)) if (text := cue_text(question, order)) else ()
            asked.append(_after(asked, question, LabelSpace(question.spec, encode, end), cue))
        return cls(asked)

    @classmethod
    def only(cls, space: LabelSpace | Answers) -> Answers:
        """One label space, whose question stands in the content; answers as they are."""
        return space if isinstance(space, Answers) else cls([_after([], None, space, ())])

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def several(self) -> bool:
        """Whether they are of several targets."""
        return bool(self.asked[0].name)

    @property
    def space(self) -> LabelSpace:
        """The label space of the one target.

        Raises:
            MsekitError: There are several.
        """
        if self.several:
            targets = dict.fromkeys(one.question.target for one in self.asked if one.question)
            raise only_one("this", list(targets))
        return self.asked[0].space

    @property
    def longest(self) -> int:
        """Tokens behind the content of the longest answer, its question's words among them."""
        return max(len(one.cue) + max(map(len, one.space.tokens)) for one in self.asked)

    def indices(self, truths: np.ndarray) -> np.ndarray:
        """Numbers of a row → positions in the label spaces: (N,) → (N,), of several targets (N, Q) → (N, Q).

        Of several, -1 stands where a sample does not answer the question.
        """
        if not self.several:
            return self.space.indices(truths)
        columns = [
            np.where(np.isnan(truth_N), -1, one.space.indices(truth_N))
            for one, truth_N in zip(self.asked, truths.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def predict(self, edges_BE: np.ndarray, estimate: Estimate) -> np.ndarray:
        """Point estimates: (B, E) → (B,), of several targets (B, Q), where `mean` and `median` are for ranges and
        classes and labels get `argmax` in their place."""
        if not self.several:
            return self.space.predict(edges_BE, estimate)
        columns = [
            one.space.predict(edges_BE[:, one.edges], estimate_for(one.space.task, estimate)) for one in self.asked
        ]
        return np.stack(columns, axis=1)


def records_of(answers: Answers, edges_BE: np.ndarray, estimate: Estimate) -> list[tuple[Any, dict[str, Any]]]:
    """Each sample's answer, and the probability of every label.

    Args:
        answers: What is asked.
        edges_BE: Log-probability of every edge.
        estimate: The point estimate.
    """
    columns = []
    for one in answers.asked:
        own_BE = edges_BE[:, one.edges]
        values_B = one.space.predict(own_BE, estimate_for(one.space.task, estimate) if answers.several else estimate)
        columns.append((one, values_B, one.space.distribution(own_BE)))
    records: list[tuple[Any, dict[str, Any]]] = []
    for row in range(len(edges_BE)):
        given = [(one, named(one.space, values_B[row]), shares_BK[row]) for one, values_B, shares_BK in columns]
        shares = [dict(zip(one.space.names, shares_K.tolist(), strict=True)) for one, _, shares_K in given]
        if not answers.several:
            records.append((given[0][1], shares[0]))
            continue
        said: dict[str, Any] = {}
        scores: dict[str, dict[str, float]] = {}
        for (one, value, _), own in zip(given, shares, strict=True):
            put(said, one, value)
            scores.setdefault(one.target, {}).update(own if one.label is None else {one.label: own["yes"]})
        records.append((said, scores))
    return records


def named(space: LabelSpace, value: float) -> str | float:
    """A value as files say it: a class by its name."""
    return float(value) if space.task == "msa" else space.names[int(value)]


def put(said: dict[str, Any], one: Asked, value: str | float) -> None:
    """Add an answer to those of the other questions."""
    if one.label is None:
        said[one.target] = value
    else:
        said.setdefault(one.target, []).extend([one.label] if value == "yes" else [])


def estimate_for(task: str, estimate: Estimate) -> Estimate:
    """The point estimate of one of several targets: classes have no mean and no median."""
    return "argmax" if task == "erc" and estimate in ("mean", "median") else estimate


def cue_text(question: Question, order: Layout) -> str:
    """A question's words behind the text; none of a set of one target, whose layout has them."""
    if not question.target:
        return ""
    return f" {question.spec.task_prompt if order == 'paper' else behind_the_text(question)}"


def cues_of(spec: DatasetSpec, order: Layout) -> tuple[str, ...]:
    """The words of all questions behind the text; none of a set of one target."""
    return tuple(cue_text(question, order) for question in questions_of(spec)) if spec.targets else ()


def _after(before: Sequence[Asked], question: Question | None, space: LabelSpace, cue: tuple[int, ...]) -> Asked:
    edges, labels = (before[-1].edges.stop, before[-1].labels.stop) if before else (0, 0)
    ends = edges + len(space.trie.token), labels + len(space)
    return Asked(question, space, cue, slice(edges, ends[0]), slice(labels, ends[1]))


def _tree(asked: Sequence[Asked]) -> tuple[Nodes, np.ndarray, np.ndarray]:
    """The nodes, and for every edge the row of the logits that it is read from, and its token: (E,) each."""
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node; 0 is the content's last column
    leaves_from: list[int] = []
    for one in asked:
        node, trie = 0, one.space.trie
        for token in one.cue:
            node = nodes.setdefault((node, token), len(nodes) + 1)
        place, inner = {0: node}, set(trie.inner.tolist())
        for edge, (parent, token) in enumerate(zip(trie.parent.tolist(), trie.token.tolist(), strict=True)):
            leaves_from.append(place[parent])
            if edge + 1 in inner:
                place[edge + 1] = nodes.setdefault((place[parent], token), len(nodes) + 1)
    scored = sorted(set(leaves_from))
    columns = [node for node in range(1, len(nodes) + 1) if node not in set(scored)] + [node for node in scored if node]
    parents, tokens = dict(zip(nodes.values(), nodes, strict=True)), {node: key[1] for key, node in nodes.items()}
    above: dict[int, set[int]] = {0: set()}
    for node, (parent, _) in parents.items():  # parents come before their children
        above[node] = above[parent] | {node}
    family = np.array([[other in above[node] for other in columns] for node in columns], dtype=bool)
    row = np.searchsorted(scored, leaves_from)
    edge_token = np.concatenate([one.space.trie.token for one in asked])
    seen = Nodes(tuple(tokens[node] for node in columns), family.reshape(len(columns), len(columns)), len(scored))
    return seen, row, edge_token
