"""mse-states: an opinion that adds up, statistics of the train split, and what it owes to every modality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msekit.adapters.interface import Evidence
from msekit.adapters.mse_states import MSEStatesAdapter
from msekit.adapters.sample_dropout import draws
from msekit.adapters.sizes import STATISTICS, WIDE, parameter_count
from msekit.adapters.standardise import Moments, Standardise
from msekit.data.catalogue import DATASETS
from msekit.model.make_adapter import make_adapter
from msekit.paper import PUBLISHED
from msekit.settings.config import AdapterConfig

WIDTH, AUDIO, VISION, SIZE = 24, 10, 7, 6
OF_AN_ENCODER = WIDE + 44
of_each_width = pytest.mark.parametrize("audio", [AUDIO, OF_AN_ENCODER])


def made(dataset: str = "meld", seed: int = 0, audio: int = AUDIO) -> MSEStatesAdapter:
    settings = AdapterConfig(name="mse-states", hidden=16, dropout=0.5)
    adapter = make_adapter(settings, WIDTH, audio, VISION, answers=DATASETS[dataset], text_scale=0.1, seed=seed)
    assert isinstance(adapter, MSEStatesAdapter)
    torch.manual_seed(seed)
    for parameter in adapter.opinion_head.parameters():  # it starts without an opinion
        torch.nn.init.normal_(parameter)
    return adapter.eval()


def evidence(seed: int = 1, layers: int = len(AdapterConfig().depths), audio: int = AUDIO) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    return Evidence(
        text_states=10 * torch.randn(SIZE, layers, 2, WIDTH, generator=generator),
        audio=torch.randn(SIZE, 9, audio, generator=generator),
        audio_lengths=torch.tensor([9, 1, 4, 2, 3, 5]),
        audio_summary=torch.randn(SIZE, STATISTICS * audio, generator=generator),
        vision=torch.randn(SIZE, 5, VISION, generator=generator),
        vision_lengths=torch.tensor([2, 5, 1, 1, 1, 1]),
        vision_summary=torch.randn(SIZE, STATISTICS * VISION, generator=generator),
    )


@pytest.mark.parametrize("dataset", ["meld", "mosei", "sims-v2"])
def test_an_opinion_is_a_distribution_over_the_labels(dataset):
    adapter, spec = made(dataset), DATASETS[dataset]
    reading = adapter.read(evidence())
    assert reading.opinion.shape == (SIZE, len(spec.labels or spec.grid))
    assert torch.allclose(reading.opinion.exp().sum(dim=1), torch.ones(SIZE), atol=1e-5)
    assert adapter.pseudo(reading).shape == (SIZE, 4, WIDTH)


def test_before_training_it_has_no_opinion():
    settings = AdapterConfig(name="mse-states", hidden=16)
    adapter = make_adapter(settings, WIDTH, AUDIO, VISION, answers=DATASETS["meld"], text_scale=0.1)
    assert torch.allclose(adapter.read(evidence()).opinion.exp(), torch.full((SIZE, 7), 1 / 7))


def test_pseudo_tokens_have_the_size_of_the_llms_words():
    adapter = made()
    tokens_BPd = adapter.pseudo(adapter.read(evidence()))
    assert torch.allclose(tokens_BPd.square().mean(dim=-1).sqrt(), torch.tensor(0.1), atol=1e-4)


@of_each_width
def test_each_sample_alone_gives_the_same(audio):
    adapter, whole = made(audio=audio), evidence(audio=audio)
    together = adapter.read(whole)
    for row in range(SIZE):
        alone = adapter.read(Evidence(*(None if part is None else part[row : row + 1] for part in whole)))
        assert torch.allclose(together.opinion[row], alone.opinion[0], atol=1e-5)
        assert torch.allclose(together.mixture[row], alone.mixture[0], atol=1e-5)


@of_each_width
@pytest.mark.parametrize("name", ["audio", "vision"])
def test_an_absent_modality_has_no_say(name, audio):
    adapter, whole = made(audio=audio), evidence(audio=audio)
    absent = whole._replace(**{f"{name}_lengths": torch.zeros(SIZE, dtype=torch.long)})
    other = absent._replace(**{f"{name}_summary": torch.randn_like(getattr(whole, f"{name}_summary"))})
    assert torch.equal(adapter.read(absent).opinion, adapter.read(other).opinion)
    assert torch.equal(adapter.read(absent).mixture, adapter.read(other).mixture)
    assert not torch.allclose(adapter.read(absent).opinion, adapter.read(whole).opinion)


@of_each_width
def test_all_that_trains_gets_a_gradient_from_the_opinion_or_the_tokens(audio):
    adapter = made(audio=audio).train()
    reading = adapter.read(evidence(audio=audio)._replace(draw=draws(1, 0, torch.arange(SIZE))))
    reading.opinion[:, 0].sum().backward(retain_graph=True)
    own = {name for name, parameter in adapter.named_parameters() if parameter.grad is not None}
    expected = {id(parameter) for parameter in adapter.opinion_parameters()}
    assert own == {name for name, parameter in adapter.named_parameters() if id(parameter) in expected}
    adapter.pseudo(reading).square().mul(torch.randn(WIDTH)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())


def test_wide_frames_are_read_by_their_statistics_alone_and_tell_all_labels_apart():
    adapter, whole = made(audio=OF_AN_ENCODER), evidence(audio=OF_AN_ENCODER)
    others = whole._replace(audio=torch.randn_like(whole.audio))
    assert torch.equal(adapter.read(whole).opinion, adapter.read(others).opinion)
    count = sum(parameter.numel() for parameter in adapter.parameters())
    sizes = (WIDTH, OF_AN_ENCODER, VISION, 64, 32, 4, 16)
    assert count == parameter_count("mse-states", *sizes, state_layers=len(AdapterConfig().depths), classes=7)
    with torch.no_grad():  # a member's map from the statistics to the labels is linear: its rank
        zero = adapter.encoders["audio"](None, torch.ones(1), torch.zeros(1, STATISTICS * OF_AN_ENCODER), None)
        eye = torch.eye(STATISTICS * OF_AN_ENCODER)
        vectors_NMh = adapter.encoders["audio"](None, torch.ones(len(eye)), eye, None) - zero
        logits_NK = vectors_NMh[:, 0] @ adapter.opinion_head.experts["audio"].weight[0]
    assert torch.linalg.matrix_rank(logits_NK) == 7


def test_statistics_of_the_train_split_come_in_batches():
    rows = 3 + 2 * torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 7.0  # never varies
    adapter, whole = made(), evidence()
    adapter.fit([whole, evidence(2)])
    states = torch.cat([whole.text_states, evidence(2).text_states]).numpy()
    states /= np.sqrt(np.square(states).mean(axis=-1, keepdims=True))
    assert np.allclose(adapter.states.standardise.mean, states.mean(axis=0), atol=1e-5)
    assert np.allclose(adapter.states.standardise.scale, 1 / states.std(axis=0), rtol=1e-3)
    one = Standardise(5)
    moments = Moments()
    for part in (rows[:30], rows[30:]):
        moments.add(part)
    one.fit(moments)
    standard = one(rows)
    assert torch.allclose(standard.mean(dim=0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(standard.std(dim=0, correction=0), torch.tensor([1.0, 1, 0, 1, 1]), atol=1e-4)


@pytest.mark.parametrize(("backbone", "dataset"), PUBLISHED)
def test_it_is_no_larger_than_the_papers_largest(backbone, dataset):
    widths, spec = {"qwen-1.8b": 2048, "llama2-7b": 4096, "chatglm3-6b": 4096}, DATASETS[dataset]
    pair = PUBLISHED[backbone, dataset]
    sizes = (widths[backbone], spec.audio_width or 0, spec.vision_width or 0, 64, 32, pair.pseudo_tokens)
    layers = len(AdapterConfig().depths)
    assert parameter_count("mse-states", *sizes, state_layers=layers, classes=len(spec.labels or ())) <= 2_800_000
