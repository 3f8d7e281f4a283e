"""What every rival promises: padding, company in the batch, an absent modality change nothing; its size; resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rival_samples import CLASSES, DIALOGUES, INTENSITY, STATES, WIDTHS, batch, some

from msekit.baselines import trainer
from msekit.baselines.catalogue import BASELINES
from msekit.baselines.run import run_baseline
from msekit.baselines.stages import loss_of, stages_of
from msekit.baselines.trainer import make_network
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
NETWORKS = [name for name, entry in BASELINES.items() if entry.network and entry.level != "llm"]
OVER_DIALOGUES = [name for name in NETWORKS if "dialogues" in BASELINES[name].needs]


def sizes_of(name: str):
    return INTENSITY if "intensities" in BASELINES[name].needs else CLASSES


def network_of(name: str, sizes=None):
    torch.manual_seed(0)
    return make_network(name, sizes or sizes_of(name)).double().eval()


def given_of(name: str):
    return batch(intensity="intensities" in BASELINES[name].needs)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_and_company_change_nothing(name):
    network, given = network_of(name), given_of(name)
    outputs = network(given)
    assert torch.allclose(network(some(given, list(range(6)), padding=3)), outputs, atol=1e-9)
    groups = [[i for i, its in enumerate(DIALOGUES) if its == dialogue] for dialogue in (0, 1)]
    for places in groups if name in OVER_DIALOGUES else [[place] for place in range(6)]:
        assert torch.allclose(network(some(given, places, padding=1)), outputs[places], atol=1e-9)
    assert (outputs - outputs[0])[1:].abs().sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_an_absent_modality_drops_out_and_a_present_one_is_heard(name):
    network, given = network_of(name), given_of(name)
    for modality in WIDTHS:
        lengths, frames = getattr(given, f"{modality}_lengths"), getattr(given, modality)
        heard = replace(given, **{modality: frames + 1.0})
        assert (network(heard) - network(given)).abs().max() > 1e-6
        absent = replace(given, **{f"{modality}_lengths": torch.zeros_like(lengths)})
        other = replace(absent, **{modality: frames + 1.0})
        assert torch.isfinite(network(absent)).all()
        assert torch.equal(network(absent), network(other))


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_trains_gets_a_gradient_and_the_loss_is_finite(name):
    """With samples that lack a modality, and with states for words."""
    for sizes in (sizes_of(name), replace(sizes_of(name), vocabulary=0, text_width=STATES.text_width)):
        network = network_of(name, sizes).train()
        if (begin := getattr(network, "begin", None)) is not None:
            begin(1)
        given = given_of(name)
        moved = set()
        for stage in stages_of(network):
            network.zero_grad()
            loss = stage.loss(given)
            assert torch.isfinite(loss)
            loss.backward()
            own = {id(parameter) for group in stage.groups for parameter in group.parameters}
            moved |= {id(p) for p in network.parameters() if p.grad is not None and id(p) in own}
        lacking = [key for key, p in network.named_parameters() if p.requires_grad and id(p) not in moved]
        assert not lacking


@pytest.mark.parametrize("name", ["ga2mif", "mm-dfn", "emocaps"])
def test_who_speaks_does_not_drown_what_is_said_before_training(name):
    """Else little is learned of what is said. (MMGCN is left out: with small speaker vectors it does not tell who spoke
    before, and with large ones it learns from real dialogues all the same.)"""
    network, given = network_of(name, STATES), given_of(name)

    def moved_by(**other) -> float:
        return (network(replace(given, **other)) - network(given)).norm().item()

    assert moved_by(sentence=given.sentence.roll(1, 0)) > 0.1 * moved_by(speaker=given.speaker.roll(1, 0))


def test_a_set_with_one_modality_is_enough():
    for name in NETWORKS:
        sizes = replace(sizes_of(name), widths={"audio": 6})
        given = replace(given_of(name), vision=None, vision_lengths=None)
        assert torch.isfinite(network_of(name, sizes)(given)).all(), name


def linear(a: int, b: int, bias: bool = True) -> int:
    return a * b + b * bias


def attention(d: int) -> int:
    return 4 * linear(d, d)


def feed(d: int, factor: int = 4) -> int:
    return linear(d, factor * d) + linear(factor * d, d)


def transformer(d: int, layers: int) -> int:
    return layers * (attention(d) + feed(d) + 4 * d) + 2 * d


def lstm(width: int, hidden: int, gates: int = 4) -> int:
    return gates * hidden * (width + hidden + 2)


def two_layers_both_ways(width: int, hidden: int, gates: int = 4) -> int:
    return 2 * lstm(width, hidden, gates) + 2 * lstm(2 * hidden, hidden, gates)


T, A, V, O = 64, 6, 5, 4  # noqa: E741  widths of text, audio and vision; outputs
WORDS = 20 * T
COUNTS = {
    "mult": WORDS
    + 40 * (T + A + V)
    + 6 * transformer(40, 4)
    + 3 * transformer(80, 4)
    + 2 * linear(240, 240)
    + linear(240, O),
    "eft": WORDS + linear(T + A + V, 64, False) + 6 * 64 + transformer(64, 4) + linear(64, 64) + linear(64, O),
    "lft": WORDS + 64 * (T + A + V + 3) + 3 * transformer(64, 4) + linear(192, 64) + linear(64, O),
    "pmr": WORDS
    + 40 * (T + A + V)
    + 4 * (6 * (2 * attention(40) + 40 * 40 + linear(40, 40) + 4 * 40 + feed(40)) + linear(40, 40) + 40 + feed(40) + 80)
    + transformer(40, 1)
    + 2 * linear(40, 40)
    + linear(40, O),
    "lfmim": WORDS
    + 64 * (T + A + V + 3)
    + 3 * 64
    + 4 * 64
    + 4 * 64
    + 3 * 2
    + (4 + 4 + 8 + 4) * (attention(64) + 8 * 64 + feed(64))
    + 4 * (2 * 64 + 64)
    + 3 * (linear(64, 32) + linear(32, 32) + linear(32, O))
    + linear(256, 128)
    + linear(128, 128)
    + linear(128, 64)
    + linear(64, O),
    "mmgcn": WORDS
    + 200 * (T + A + V + 3)
    + two_layers_both_ways(200, 100)
    + 3 * 200
    + linear(200, 100)
    + 4 * 200 * 100
    + linear(900, O),
    "mm-dfn": WORDS
    + 200 * (T + A + V + 3)
    + 2 * two_layers_both_ways(200, 100, gates=3)
    + linear(200, 100)
    + 16 * 200 * 100
    + lstm(100, 100)
    + linear(900, O),
    "ga2mif": WORDS
    + 200 * (T + A + V + 3)
    + two_layers_both_ways(200, 200)
    + linear(400, 200)
    + 3 * 200
    + 9 * (2 * linear(200, 800) + 800 + 200 + 400)
    + 4 * (6 * attention(200) + 3 * (feed(200, 2) + 800))
    + linear(600, 200)
    + linear(200, O),
    "emocaps": WORDS
    + 128 * (T + A + V + 3)
    + 3 * (transformer(128, 2) + 4 * linear(128, 128) + linear(128, 100))
    + two_layers_both_ways(T + 300, 100)
    + linear(200, 100)
    + linear(100, O),
    "misa": WORDS
    + sum(2 * lstm(d, d) + 4 * d + 2 * lstm(2 * d, d) for d in (A, V))
    + 128 * (T + 4 * A + 4 * V + 3)
    + 3 * 256
    + 7 * linear(128, 128)
    + attention(128)
    + linear(128, 2048)
    + linear(2048, 128)
    + 4 * 128
    + linear(768, 384)
    + linear(384, O),
    "mmim": WORDS
    + linear(T, 128)
    + 256
    + 2 * (lstm(A, 16) + lstm(V, 16) + linear(32, 16))
    + linear(160, 128)
    + linear(128, 128)
    + linear(128, O)
    + 2 * 2 * (linear(128, 16) + linear(16, 16))
    + linear(128, 128)
    + 2 * linear(128, 16),
    "self-mm": WORDS
    + lstm(A, 32)
    + lstm(V, 32)
    + 2 * linear(32, 32)
    + sum(linear(w, h) + linear(h, h) + linear(h, 1) for w, h in ((128, 128), (64, 32), (32, 16), (32, 32))),
    "av-mixup": WORDS
    + linear(T, 64)
    + 2 * (A + V)
    + sum(linear(d, 16) + 2 * linear(16, 16) for d in (A, V))
    + sum(linear(w, h) + linear(h, h) + linear(h, O) for w, h in ((64, 32), (16, 32), (16, 64)))
    + linear(128, 16)
    + linear(16, 16)
    + linear(16, O),
}
COUNTS["av-mc"] = COUNTS["av-mixup"]


@pytest.mark.parametrize("name", COUNTS)
def test_what_trains_is_counted_by_hand(name):
    network = network_of(name)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == COUNTS[name]


def test_every_rival_is_counted():
    assert set(COUNTS) == {name for name in NETWORKS if BASELINES[name].needs}


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("name", ["lft", "self-mm", "mmim", "av-mixup"])
def test_a_stopped_run_goes_on_to_the_same_numbers(name, tmp_path: Path, monkeypatch):
    """What draws, what remembers, what has two optimisers."""
    asked = {"spec": DATASETS["synthetic-msa"], "seed": 3, "epochs": 3, "limit_train": 32, "reporter": QUIET}
    whole = run_baseline(name, output=tmp_path / "whole", **asked)
    own, saved = trainer.Trainer._save, []

    def save_and_stop(self):
        own(self)
        saved.append(self.progress.epoch)
        if len(saved) == 1:
            raise Stopped

    monkeypatch.setattr(trainer.Trainer, "_save", save_and_stop)
    with pytest.raises(Stopped):
        run_baseline(name, output=tmp_path / "stopped", **asked)
    with pytest.raises(MsekitError, match="unfinished run of another baseline"):
        run_baseline(name, output=tmp_path / "stopped", **asked | {"epochs": 4})
    again = run_baseline(name, output=tmp_path / "stopped", **asked)
    assert saved == [1, 2, 3]
    assert again["metrics"] == whole["metrics"]
    assert not (tmp_path / "stopped" / "state").exists()


def test_a_network_without_a_loss_of_its_own_has_the_task_s():
    network, given = network_of("mult"), given_of("mult")
    expected = torch.nn.functional.cross_entropy(network(given), given.truth.long())
    assert torch.equal(loss_of(network, given), expected)
