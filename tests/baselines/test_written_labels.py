"""unimse-adapter and unisa-input: what stands in the frozen LLM and before it, and that the LLM writes the label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_layers as p
import pytest
import torch
from rival_samples import CLASSES, batch, some

from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.baselines.run import run_baseline
from msekit.baselines.texts import OfLLM, TextFrom, Texts
from msekit.baselines.trainer import make_network
from msekit.baselines.written_labels import SLOTS, FeedForwardAdapter
from msekit.data.catalogue import DATASETS
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
NAMES = ("unimse-adapter", "unisa-input")
WIDTHS = {"audio": 6, "vision": 5}


@pytest.fixture(scope="module")
def plainly(own_cache: Path) -> Backbone:
    return load_backbone("tiny-llama", device="cpu", passes="plain")


def network_of(name: str, backbone: Backbone):
    torch.manual_seed(0)
    of_llm = OfLLM(backbone, 1, DATASETS["synthetic-erc"])
    return make_network(name, replace(CLASSES, vocabulary=0), Texts({}, of_llm=of_llm)).eval()


def given():
    made = batch()
    longer = {"text_ids": torch.nn.functional.pad(made.text_ids, (0, 1)), "text_lengths": made.text_lengths + 1}
    return replace(made, audio=made.audio.float(), vision=made.vision.float(), truth=made.truth.float(), **longer)


def moved(network):
    """The same with weights that are not the first ones."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_company_change_nothing_and_all_is_heard(name, plainly: Backbone):
    network, many = moved(network_of(name, plainly)), given()
    outputs = network(many)
    assert outputs.shape == (6, 4)
    assert torch.allclose(network(some(many, list(range(6)), padding=2)), outputs, atol=1e-4)
    for place in range(6):
        assert torch.allclose(network(some(many, [place], padding=1)), outputs[place : place + 1], atol=1e-4)
    for modality in WIDTHS:
        heard = replace(many, **{modality: getattr(many, modality) + 1})
        assert (network(heard) - outputs).abs().max() > 1e-5
        lengths = torch.zeros_like(getattr(many, f"{modality}_lengths"))
        absent, other = (replace(each, **{f"{modality}_lengths": lengths}) for each in (many, heard))
        assert torch.equal(network(absent), network(other))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_label_s_tokens(name, plainly: Backbone):
    """All labels of this set are single tokens, so the score of a label is minus its loss."""
    network, many = moved(network_of(name, plainly)), given()
    assert {len(tokens) for tokens in network_labels(network).tokens} == {1}
    own = network(many).gather(1, many.truth.long()[:, None])
    assert network.loss(many).item() == pytest.approx(-own.mean().item(), rel=1e-4)
    network.loss(many).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in plainly.model.parameters())


def network_labels(network):
    return getattr(network, "written", network).model.labels


def test_unimse_begins_as_the_llm_itself_and_leaves_it_so(plainly: Backbone):
    network, many = network_of("unimse-adapter", plainly), given()
    assert torch.allclose(network(many), network.written(many), atol=1e-5)
    moved(network)
    assert (network(many) - network.written(many)).abs().max() > 1e-3
    assert not any(layer._forward_hooks for layer in network._feeds), "no hook stays behind"


def test_the_feed_forward_adapter_is_its_equation():
    torch.manual_seed(0)
    adapter = moved(FeedForwardAdapter(4, 3)).double()
    w = {key: x.numpy() for key, x in adapter.state_dict().items()}
    h, extra = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    found = adapter(h.float().double(), extra).detach().numpy()
    for row in range(2):
        for step in range(5):
            x = np.concatenate([h[row, step].float().double().numpy(), extra[row].numpy()])
            expected = p.lin(w, "out", x + p.lin(w, "up", p.sigmoid(p.lin(w, "down", x))))
            np.testing.assert_allclose(found[row, step], expected, rtol=1e-5, atol=1e-6)


def test_unisa_s_slots_are_frames_between_tags(plainly: Backbone):
    network, many = moved(network_of("unisa-input", plainly)), given()
    adapter = network.model.adapter
    frames = (many.audio, many.audio_lengths, many.vision, many.vision_lengths)
    tokens = adapter(torch.zeros(6, 1, plainly.text_dim), torch.ones(6, 1), *frames)
    assert tokens.shape == (6, 2 * (SLOTS + 2), plainly.text_dim) == (6, adapter.pseudo_tokens, plainly.text_dim)
    for start, modality in ((0, "audio"), (SLOTS + 2, "vision")):
        opening, closing = adapter.tags[modality]
        assert torch.equal(tokens[:, start], opening.expand(6, -1))
        assert torch.equal(tokens[:, start + SLOTS + 1], closing.expand(6, -1))
        for row, length in enumerate(getattr(many, f"{modality}_lengths").tolist()):
            slots = tokens[row, start + 1 : start + 1 + SLOTS]
            expected = adapter.maps[modality](getattr(many, modality)[row, :length])
            assert torch.allclose(slots[:length], expected, atol=1e-6)
            assert not slots[length:].any()


def test_what_trains_is_counted_by_hand(plainly: Backbone):
    d, frames = plainly.text_dim, 6 + 5
    count = {name: sum(x.numel() for x in network_of(name, plainly).parameters()) for name in NAMES}
    assert count["unisa-input"] == frames * d + 2 * d + 4 * d
    wide, layers = d + 64, len(network_of("unimse-adapter", plainly)._feeds)
    lstms = sum(4 * 32 * (width + 32 + 2) for width in WIDTHS.values()) + 2 * (32 * 32 + 32)
    assert count["unimse-adapter"] == lstms + layers * (wide * 64 + 64 + 64 * wide + wide + wide * d + d)


@pytest.mark.parametrize("spec", ["synthetic-erc", "synthetic-msa"])
def test_a_run_writes_classes_and_intensities(spec, tmp_path: Path):
    asked = {"spec": DATASETS[spec], "seed": 1, "epochs": 1, "limit_train": 8, "reporter": QUIET}
    text = TextFrom(backbone="tiny-llama")
    report = run_baseline("unisa-input", output=tmp_path / "run", text=text, **asked)
    assert report["text_from"] == "llm"
    assert report["trainable_parameters"]
