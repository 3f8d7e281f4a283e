"""The product of the LLM's scores and an opinion, against sums over whole labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msekit.data.catalogue import DATASETS
from msekit.model.labels import LabelSpace
from msekit.model.product import WEIGHTS, Product


def space(dataset: str) -> LabelSpace:
    return LabelSpace(DATASETS[dataset], lambda text: [ord(character) for character in text], 0)


@pytest.fixture(params=["meld", "mosei"])
def labels(request) -> LabelSpace:
    return space(request.param)


def drawn(labels: LabelSpace, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    opinion = torch.randn(3, len(labels), generator=generator).log_softmax(dim=1)
    return opinion, torch.randn(3, labels.trie.paths.shape[1], generator=generator)


def test_opinion_edges_give_the_opinion_back(labels):
    product, (opinion, _) = Product(labels.trie), drawn(labels, 0)
    assert torch.allclose(product.opinion(opinion) @ torch.from_numpy(labels.trie.paths).T, opinion, atol=1e-5)


def test_every_node_is_multiplied_and_normalised(labels):
    product, (opinion, llm) = Product(labels.trie), drawn(labels, 1)
    edges = product(llm, product.opinion(opinion), 1.0)
    paths, parents = torch.from_numpy(labels.trie.paths), labels.trie.parent
    for node in labels.trie.inner:
        leaving = (parents == node).nonzero()[0]
        beneath = torch.stack([opinion[:, paths[:, edge] > 0].exp().sum(dim=1) for edge in leaving], dim=1)
        expected = llm[:, leaving].exp() * beneath
        expected /= expected.sum(dim=1, keepdim=True)
        assert torch.allclose(edges[:, leaving].exp(), expected, atol=1e-5)


def test_an_indifferent_llm_leaves_the_opinion(labels):
    product, (opinion, llm) = Product(labels.trie), drawn(labels, 2)
    opinion_edges = product.opinion(opinion)
    assert torch.allclose(product(torch.zeros_like(llm), opinion_edges, 1.0), opinion_edges, atol=1e-5)


def test_an_opinion_sure_beyond_float32_stays_finite(labels):
    product, (_, llm) = Product(labels.trie), drawn(labels, 3)
    sure = (500 * torch.randn(3, len(labels), generator=torch.Generator().manual_seed(4))).log_softmax(dim=1)
    sure.requires_grad_()
    edges = product(llm, product.opinion(sure), 1.0)
    assert torch.isfinite(edges).all()
    edges.sum().backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_the_llm_is_trusted_as_far_as_it_is_right(labels):
    """One that says the truth gets the largest weight tried, one that says nothing true none."""
    product, (opinion, _) = Product(labels.trie), drawn(labels, 5)
    truth = torch.tensor([0, 1, 2])
    on_path = torch.from_numpy(labels.trie.paths)[truth]
    assert product.fitted_weight(3 * on_path, product.opinion(opinion), truth) == WEIGHTS[-1]
    assert product.fitted_weight(-3 * on_path, product.opinion(opinion), truth) == 0


def test_few_samples_trust_the_llm_less_than_many_of_the_same(labels):
    """The smallest weight within one standard error of the best, stated once more in NumPy."""
    product, generator = Product(labels.trie), torch.Generator().manual_seed(6)
    truth = torch.randint(len(labels), (20,), generator=generator)
    on_path = torch.from_numpy(labels.trie.paths)[truth]
    llm = torch.randn(on_path.shape, generator=generator) + on_path
    opinion = product.opinion(torch.randn(20, len(labels), generator=generator).log_softmax(dim=1)) + 0.5 * on_path
    losses = np.stack([-(product(llm, opinion, w) * on_path).sum(dim=1).numpy() for w in WEIGHTS])
    worse = losses - losses[losses.mean(axis=1).argmin()]
    chosen = {}
    for copies in (1, 100):
        chosen[copies] = product.fitted_weight(llm.repeat(copies, 1), opinion.repeat(copies, 1), truth.repeat(copies))
        within = worse.mean(axis=1) <= worse.std(axis=1) / np.sqrt(20 * copies)
        assert chosen[copies] == WEIGHTS[int(np.flatnonzero(within)[0])]
    best = WEIGHTS[int(losses.mean(axis=1).argmin())]
    assert 0 < chosen[1] < chosen[100] <= best
