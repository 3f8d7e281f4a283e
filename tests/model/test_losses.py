"""The losses beside the paper's: equal to it where they should be, to their formulas where not, and they train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from as_on_gpu import bound

from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.edges import Edges
from msekit.model.labels import LabelSpace
from msekit.model.losses import Objective
from msekit.reporter import Reporter
from msekit.settings.config import LossConfig
from msekit.settings.resolve import resolve
from msekit.training.build import build
from msekit.training.loop import Run, train
from msekit.training.moving_average import Average

QUIET = Reporter(quiet=True)
BF16_APART = 0.03
"""Of the largest value: how far two passes of an LLM in bf16 are apart that order their columns otherwise."""


def space(dataset: str) -> LabelSpace:
    return LabelSpace(DATASETS[dataset], lambda text: [ord(character) for character in text], 0)


def config_of(output: Path, dataset: str, **sections):
    common = {"backbone": "tiny-llama", "dataset": dataset, "output": output, "data": {"limit_train": 32}}
    common |= {"recipe": "kit"}
    return resolve(common | {"evaluation": {"bootstrap": 0, "integrity": False}} | sections, task=dataset[-3:])


def test_the_default_is_the_papers_loss():
    assert not LossConfig().scores_every_label


@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_without_terms_the_trie_gives_the_papers_loss(tmp_path: Path, dataset: str):
    """The same number and the same gradients by either pass, filler samples left out."""
    parts = build(config_of(tmp_path, dataset), QUIET, splits=("train",))
    batch = parts.collators["train"](list(range(8)))
    batch.weight[3] = 0
    gradients = []
    for objective in (None, Objective(LossConfig(), parts.labels, parts.collators["train"].labels, chr)):
        parts.model.objective = objective
        parts.model.zero_grad()
        loss = parts.model(batch)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in parts.model.adapter.parameters())])
    for ours, papers in zip(*gradients, strict=True):
        rounding = bound(1e-4, BF16_APART * float(papers.abs().max()))
        assert torch.allclose(ours, papers, rtol=bound(1e-4, 1e-2), atol=rounding)


def test_balanced_and_adjusted_by_their_formulas():
    labels = space("synthetic-erc")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 4, generator=generator)  # one token a label: edges are labels
    truth, weight = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1.0, 1, 1, 1, 0])
    train_labels = np.array([0] * 6 + [1] * 2 + [2] * 1 + [3] * 1)
    shares = torch.tensor([0.6, 0.2, 0.1, 0.1])
    loss = Objective(LossConfig(balance="class-balanced"), labels, train_labels, chr)(Edges(scores), truth, weight)
    assert loss.item() == pytest.approx(sum(-scores[i, i].item() / (4 * shares[i].item()) for i in range(4)), rel=1e-5)
    mean_weight = sum(shares[label].item() / (4 * shares[label].item()) for label in range(4))
    assert mean_weight == pytest.approx(1)
    loss = Objective(LossConfig(balance="logit-adjusted", tau=2), labels, train_labels, chr)(
        Edges(scores), truth, weight
    )
    expected = sum(-(scores[i] + 2 * shares.log()).log_softmax(0)[i] for i in range(4))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_expected_value_term_by_its_formula():
    labels = space("mosei")
    edges = torch.randn(2, labels.trie.paths.shape[1], generator=torch.Generator().manual_seed(0))
    truth, weight = torch.tensor([0, 45]), torch.ones(2)
    plain, more = (
        Objective(LossConfig(expected=value), labels, np.arange(61), chr)(Edges(edges), truth, weight)
        for value in (0, 0.5)
    )
    mean = labels.distribution(edges.numpy()) @ labels.values
    assert (more - plain).item() == pytest.approx(0.5 * np.abs(mean - [-3.0, 1.5]).sum(), rel=1e-4)


def test_a_loss_of_the_other_task_is_refused():
    with pytest.raises(MsekitError, match="intensities"):
        Objective(LossConfig(expected=1), space("meld"), np.arange(7), chr)
    with pytest.raises(MsekitError, match=r"loss\.number_token is for intensities"):
        Objective(LossConfig(number_token=1), space("meld"), np.arange(7), chr)
    with pytest.raises(MsekitError, match="emotions"):
        Objective(LossConfig(balance="logit-adjusted"), space("mosei"), np.arange(61), chr)


@pytest.mark.parametrize(
    ("dataset", "loss"),
    [("synthetic-erc", {"balance": "class-balanced"}), ("synthetic-msa", {"expected": 1.0, "number_token": 0.6})],
)
def test_it_trains(tmp_path: Path, dataset: str, loss: dict):
    report = train(config_of(tmp_path / "seed-1", dataset, loss=loss, optim={"epochs": 1}), reporter=QUIET)
    assert report["samples"] == 320


def test_the_average_follows_its_formula_and_leaves_the_adapter_alone():
    adapter = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(adapter.weight, 0.0)
    average = Average(adapter, 0.5)
    torch.nn.init.constant_(adapter.weight, 1.0)
    average.update(1)
    assert average.tensors["weight"].item() == pytest.approx(1 - 2 / 11)
    average.update(100)
    assert average.tensors["weight"].item() == pytest.approx(1 - 1 / 11)
    with average.in_place():
        assert adapter.weight.item() == pytest.approx(1 - 1 / 11)
    assert adapter.weight.item() == 1.0


@pytest.mark.slow
def test_an_averaged_run_resumes_to_the_same_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from safetensors.torch import load_file

    settings = {"optim": {"epochs": 2, "ema": 0.9}}
    whole = config_of(tmp_path / "whole", "synthetic-erc", **settings)
    train(whole, reporter=QUIET)
    broken = config_of(tmp_path / "broken", "synthetic-erc", **settings)
    validate = Run.validate

    def stop_later(run, *arguments):
        if run.progress.epoch == 1:
            raise KeyboardInterrupt
        return validate(run, *arguments)

    monkeypatch.setattr(Run, "validate", stop_later)
    with pytest.raises(KeyboardInterrupt):
        train(broken, reporter=QUIET)
    monkeypatch.undo()
    train(broken, resume=True, reporter=QUIET)
    first, second = (load_file(config.output / "adapter.safetensors") for config in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = config_of(tmp_path / "plain", "synthetic-erc", optim={"epochs": 2})
    train(plain, reporter=QUIET)
    other = load_file(plain.output / "adapter.safetensors")
    assert any(not torch.equal(first[name], other[name]) for name in first)
