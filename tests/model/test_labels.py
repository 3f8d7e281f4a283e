"""LabelSpace: what labels are written as, the trie, and each point estimate by hand."""

from __future__ import annotations

import numpy as np
import pytest

from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.errors import MsekitError
from msekit.model.labels import LabelSpace, Trie

END = 999


def characters(text: str) -> list[int]:
    """One token per character, as small byte-level tokenizers write digits."""
    return [ord(character) for character in text]


def signs_apart(text: str) -> list[int]:
    """A tokenizer that joins the minus to the digit: unsigned labels then all have the same length."""
    return [ord(text[1]) + 1000, *characters(text[2:])] if text.startswith("-") else characters(text)


def msa(low=-0.2, high=0.2):
    return DatasetSpec(name="x", task="msa", layout="msa-pickle", range=(low, high))


def erc(count):
    return DatasetSpec(name="x", task="erc", layout="erc-pickle", labels=tuple(f"c{i}" for i in range(count)))


def test_the_plus_is_written_where_the_signs_would_differ_in_length():
    assert LabelSpace(msa(), characters, END).texts == ["-0.2", "-0.1", "+0.0", "+0.1", "+0.2"]
    assert LabelSpace(msa(), signs_apart, END).texts == ["-0.2", "-0.1", "0.0", "0.1", "0.2"]


def test_a_range_without_negative_labels_needs_no_plus():
    assert LabelSpace(msa(8.0, 11.0), characters, END).texts[-1] == "11.0"


def test_the_grid_of_the_paper_has_61_labels_and_18_inner_nodes():
    labels = LabelSpace(DATASETS["mosei"], characters, END)
    assert len(labels) == 61
    assert labels.values[0] == -3.0
    assert labels.values[30] == 0.0
    # root; two signs; -0 -1 -2 -3 +0 +1 +2 +3; and each of those with its point
    assert len(labels.trie.inner) == 1 + 2 + 8 + 8


def test_the_end_token_is_added_only_where_a_label_begins_another():
    assert LabelSpace(erc(10), characters, END).tokens[1] == [ord("1")]
    eleven = LabelSpace(erc(11), characters, END)
    assert eleven.tokens[1] == [ord("1"), END]
    assert eleven.tokens[10] == [ord("1"), ord("0"), END]


def test_two_labels_written_alike_are_refused():
    with pytest.raises(MsekitError, match="alike"):
        LabelSpace(erc(3), lambda text: [7], END)


def test_true_values_find_their_label():
    labels = LabelSpace(DATASETS["mosei"], characters, END)
    truths = np.array([-3.0, -0.04, 0.0, np.float32(0.4), 2.96, 3.0])
    assert labels.values[labels.indices(truths)].tolist() == [-3.0, 0.0, 0.0, 0.4, 3.0, 3.0]
    assert LabelSpace(erc(3), characters, END).indices(np.array([2.0, 0.0])).tolist() == [2, 0]


def test_scores_of_a_label_are_the_sum_along_its_path():
    trie = Trie.build([[1, 2], [1, 3], [4, 2]])
    assert trie.token.tolist() == [1, 2, 3, 4, 2]
    assert trie.parent.tolist() == [0, 1, 1, 0, 4]
    assert trie.inner.tolist() == [0, 1, 4]
    assert trie.edge_row.tolist() == [0, 1, 1, 0, 2]
    assert trie.paths.tolist() == [[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert trie.family.tolist() == [[True, False], [False, True]]
    assert Trie.build([[1, 2, 3], [1, 2, 4]]).family.tolist() == [[True, False], [True, True]]
    assert trie.ancestors(5) == [5, 4]


def edges_for(labels: LabelSpace, probabilities: dict[str, float]) -> np.ndarray:
    """Edge log-probabilities under which each label has the given probability."""
    shares = np.array([probabilities.get(text, 1e-12) for text in labels.texts])
    through = shares @ labels.trie.paths  # (E,) probability of passing an edge
    parent_mass = np.array([1.0 if p == 0 else through[p - 1] for p in labels.trie.parent])
    return np.log(through / parent_mass)[None]


def test_point_estimates_by_hand():
    labels = LabelSpace(msa(), characters, END)
    # the sign + has .6 of the mass, but the single most probable label is -0.1
    edges = edges_for(labels, {"-0.1": 0.4, "+0.0": 0.2, "+0.1": 0.25, "+0.2": 0.15})
    assert labels.predict(edges, "greedy") == [0.1]
    assert labels.predict(edges, "argmax") == [-0.1]
    assert labels.predict(edges, "mean")[0] == pytest.approx(-0.04 + 0.025 + 0.03)
    assert labels.predict(edges, "median") == [0.0]
    assert labels.distribution(edges).sum() == pytest.approx(1)


def test_greedy_walks_labels_of_unequal_length():
    labels = LabelSpace(erc(11), characters, END)
    for name, expected in (("1", 1), ("10", 10), ("7", 7)):
        edges = edges_for(labels, {name: 0.9, "3": 0.1})
        assert labels.predict(edges, "greedy") == [expected]
        assert labels.predict(edges, "argmax") == [expected]


@pytest.mark.parametrize("estimate", ["mean", "median"])
def test_emotions_have_no_mean(estimate):
    labels = LabelSpace(erc(3), characters, END)
    with pytest.raises(MsekitError, match="intensities"):
        labels.predict(np.zeros((1, 3)), estimate)
