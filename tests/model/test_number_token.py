"""The number-token loss: by hand, place by place, and with tokenizers that write numbers otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.edges import Edges
from msekit.model.labels import LabelSpace
from msekit.model.losses import Objective
from msekit.model.number_token import NumberTokenLoss
from msekit.settings.config import LossConfig

MSA = DATASETS["mosei"]
LABELS = LabelSpace(MSA, lambda text: [ord(character) for character in text], 0)  # -3.0 ... +3.0, signs on all
EDGES = len(LABELS.trie.token)


def edges_with(probabilities: dict[str, float]) -> torch.Tensor:
    """(1, E) log-probabilities of what is written after each beginning: `+1.` and then `3` is `+1.3`; others -4."""
    beginnings = {0: ""}
    for edge, (parent, token) in enumerate(zip(LABELS.trie.parent, LABELS.trie.token, strict=True)):
        beginnings[edge + 1] = beginnings[int(parent)] + chr(token)
    assert set(probabilities) <= set(beginnings.values())
    return torch.tensor([[math.log(probabilities.get(beginnings[edge + 1], math.exp(-4))) for edge in range(EDGES)]])


def loss_of(edges: torch.Tensor, truth: float) -> float:
    label = torch.from_numpy(LABELS.indices(np.array([truth])))
    return NumberTokenLoss(LABELS.trie, chr)(edges, label).item()


def test_digits_cost_their_distance_place_by_place():
    """Truth +1.3. Ones: 1 with .5, 3 with .25, 0 and 2 with .125 each; tenths: 3 with .4, 5 with .6, no other."""
    ones = {"+0": 0.125, "+1": 0.5, "+2": 0.125, "+3": 0.25}
    tenths = {f"+1.{digit}": 1e-30 for digit in range(10)} | {"+1.3": 0.4, "+1.5": 0.6}
    expected = (0.125 * 1 + 0.125 * 1 + 0.25 * 2) + 0.6 * 2
    assert loss_of(edges_with(ones | tenths), 1.3) == pytest.approx(expected, rel=1e-5)


def test_only_the_shares_among_digits_count():
    """Theirs normalises over number tokens: mass on other tokens, or a whole place made rarer, changes nothing."""
    ones = {"-0": 0.2, "-1": 0.2, "-2": 0.2, "-3": 0.4}
    edges = edges_with(ones)
    rarer = edges_with({beginning: share * 1e-4 for beginning, share in ones.items()})
    assert loss_of(rarer, -2.0) == pytest.approx(loss_of(edges, -2.0), rel=1e-5)
    tenths = sum(range(10)) / 10  # all alike, truth 0
    assert loss_of(edges, -2.0) == pytest.approx(0.2 * 2 + 0.2 * 1 + 0.4 * 1 + tenths, rel=1e-5)


def test_the_sign_costs_nothing_and_a_place_without_choice_neither():
    """Of +3.0 only the ones can be wrong, as nothing but 0 stands after `+3.`; and + or - changes nothing."""
    ones = {"+0": 0.1, "+1": 0.2, "+2": 0.3, "+3": 0.4}
    for sign in (0.01, 0.99):
        edges = edges_with(ones | {"+": sign, "-": 1 - sign})
        assert loss_of(edges, 3.0) == pytest.approx(0.1 * 3 + 0.2 * 2 + 0.3 * 1, rel=1e-5)


def test_the_right_digits_cost_nothing():
    sure = dict.fromkeys(("+", "+1", "+1.", "+1.3"), 1 - 1e-12)
    others = {f"+{digit}": 1e-12 for digit in (0, 2, 3)} | {f"+1.{digit}": 1e-12 for digit in range(10) if digit != 3}
    assert loss_of(edges_with(sure | others), 1.3) < 1e-9


def test_a_number_in_one_token_costs_its_distance_in_labels():
    words: dict[str, int] = {}

    def whole(text: str) -> list[int]:
        """`+` and `-`, then `1.3` as one token."""
        parts = [text[0], text[1:]] if text[0] in "+-" else [text]
        return [words.setdefault(part, len(words) + 1) for part in parts]

    labels = LabelSpace(MSA, whole, 0)
    read = {token: text for text, token in words.items()}
    loss = NumberTokenLoss(labels.trie, lambda token: read[token])
    generator = torch.Generator().manual_seed(0)
    edges = torch.randn(1, len(labels.trie.token), generator=generator).double()
    truth = -0.7
    computed = loss(edges, torch.from_numpy(labels.indices(np.array([truth])))).item()
    # after `-` stand 0.1 ... 3.0
    texts = [read[int(token)] for token in labels.trie.token]
    after_minus = [e for e in range(len(texts)) if labels.trie.parent[e] == texts.index("-") + 1]
    shares = edges[0, after_minus].softmax(0)
    values = torch.tensor([float(texts[e]) for e in after_minus])
    assert len(after_minus) == 30
    assert computed == pytest.approx((shares * (values - 0.7).abs()).sum().item(), rel=1e-5)


def test_labels_without_number_tokens_are_refused():
    with pytest.raises(MsekitError, match="without number tokens"):
        NumberTokenLoss(LABELS.trie, lambda token: "x")


def test_it_is_added_with_its_weight_and_its_gradients_are_finite():
    generator = torch.Generator().manual_seed(0)
    edges = (30 * torch.randn(3, EDGES, generator=generator)).requires_grad_()  # as far apart as an untrained LLM's
    truth, weight = torch.tensor([0, 30, 43]), torch.tensor([1.0, 1.0, 0.0])
    plain, more = (
        Objective(LossConfig(number_token=value), LABELS, np.arange(61), chr)(Edges(edges), truth, weight)
        for value in (0, 0.6)
    )
    terms = NumberTokenLoss(LABELS.trie, chr)(edges, truth)
    assert (more - plain).item() == pytest.approx(0.6 * (terms * weight).sum().item(), rel=1e-4)
    more.backward()
    assert edges.grad is not None
    assert torch.isfinite(edges.grad).all()
    assert edges.grad[0].abs().sum() > 0
    assert edges.grad[2].abs().sum() == 0


def test_a_real_tokenizer_has_ones_and_tenths(tiny):
    labels = LabelSpace(DATASETS["synthetic-msa"], tiny.encode, tiny.end)
    loss = NumberTokenLoss(labels.trie, tiny.decode)
    texts = {tiny.decode(int(labels.trie.token[edge])).strip() for edge in loss.choices.unique()}
    assert texts <= set("0123456789")
    assert len(texts) > 1
