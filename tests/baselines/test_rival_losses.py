"""The rivals' losses, by cases that are computed by hand or written once more in NumPy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rival_samples import CLASSES, INTENSITY, batch, some

from msekit.baselines import av_mc, lfmim, misa, mmim, self_mm
from msekit.baselines.dialogues import Groups
from msekit.baselines.losses import (
    focal,
    gaussian_likelihood,
    info_nce,
    log_volume,
    moment_distance,
    orthogonality,
    task_loss,
)
from msekit.baselines.trainer import make_network


def network_of(name, sizes):
    torch.manual_seed(0)
    return make_network(name, sizes).double().eval()


def test_the_task_s_loss():
    assert task_loss(torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 1.0])).item() == 1.5
    even = task_loss(torch.zeros(3, 4), torch.tensor([0.0, 1.0, 3.0]))
    assert even.item() == pytest.approx(math.log(4))


def test_focal_loss_weighs_what_is_known_less():
    logits = torch.tensor([[math.log(3), 0.0]])  # p = .75, .25
    assert focal(logits, torch.tensor([0.0]), 1.0).item() == pytest.approx(-0.25 * math.log(0.75), rel=1e-5)
    assert focal(logits, torch.tensor([1.0]), 2.0).item() == pytest.approx(-(0.75**2) * math.log(0.25), rel=1e-5)
    assert focal(logits, torch.tensor([1.0]), 0.0).item() == pytest.approx(-math.log(0.25), rel=1e-5)


def test_moments_apart():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    # means .5 and 1.5; central moments .25 and 2.25, 0 and 0, .0625 and 5.0625, 0 and 0
    assert moment_distance(x, y).item() == pytest.approx(1 + 2 + 5, abs=1e-4)
    assert moment_distance(x, x).item() == pytest.approx(0, abs=1e-5)
    one = torch.ones(1, 3, requires_grad=True)
    moment_distance(one, one * 1.0).backward()
    assert torch.isfinite(one.grad).all()


def test_orthogonality():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    y = torch.tensor([[0.0, 2.0], [0.0, -2.0]])
    # rows are ±(1, 0) and ±(0, 1): XᵀY has the single entry 2, its mean square over four entries is 1
    assert orthogonality(x, y).item() == pytest.approx(1.0, rel=1e-4)
    crossed = torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, -2.0], [0.0, -2.0]])
    assert orthogonality(torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]]), crossed).item() == pytest.approx(0)


def test_contrast_has_its_known_floor():
    """On unit vectors without a temperature it is never below log(1 + (B − 1) exp(−2)) for opposite others."""
    x = torch.tensor([[2.0, 0.0], [-3.0, 0.0]])
    assert info_nce(x, x).item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    assert info_nce(x, -x).item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)
    assert info_nce(x, x, 0.1).item() == pytest.approx(math.log(1 + math.exp(-20)), abs=1e-6)


def test_likelihood_and_volume():
    mean, spread, y = torch.zeros(1, 2), torch.tensor([[0.0, math.log(4)]]), torch.tensor([[1.0, 2.0]])
    assert gaussian_likelihood(mean, spread, y).item() == pytest.approx(-0.5 * (1 + 1 + math.log(4)), rel=1e-6)
    wide = gaussian_likelihood(mean, torch.full((1, 2), 20.0), y)
    assert wide < gaussian_likelihood(mean, spread, y), "a boundless variance is no way out"
    samples = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    assert log_volume(samples, 0.0).item() == pytest.approx(math.log(2 / 3 * 8 / 3), rel=1e-5)
    assert torch.isfinite(log_volume(samples[:1]))


def test_utterances_are_put_into_dialogues_and_back():
    groups = Groups.of(torch.tensor([7, 3, 7, 3, 7]), torch.tensor([2, 0, 1, 5, 9]))
    x = torch.arange(5.0)[:, None]
    assert groups.spread(x)[..., 0].tolist() == [[1, 3, 0], [2, 0, 4]]
    assert groups.mask.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(groups.back(groups.spread(x)), x)


def test_misa_s_loss_is_the_sum_of_its_terms():
    network, given = network_of("misa", INTENSITY), batch(intensity=True)
    came, own, shared = ({name: x.detach().numpy() for name, x in part.items()} for part in network.spaces(given))
    there = {
        "text": np.ones(6, bool),
        "audio": given.audio_lengths.numpy() > 0,
        "vision": given.vision_lengths.numpy() > 0,
    }

    def moments(x, y):
        total = np.sqrt(((x.mean(0) - y.mean(0)) ** 2).sum())
        for k in range(2, 6):
            total += np.sqrt((((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0)).__pow__(2).sum())
        return total

    def apart(x, y):
        x, y = (z - z.mean(0) for z in (x, y))
        x, y = (z / (np.linalg.norm(z, axis=1, keepdims=True) + 1e-6) for z in (x, y))
        return ((x.T @ y) ** 2).mean()

    pairs = [("text", "audio"), ("text", "vision"), ("audio", "vision")]
    both = {pair: there[pair[0]] & there[pair[1]] for pair in pairs}
    similar = sum(moments(shared[a][both[a, b]], shared[b][both[a, b]]) for a, b in pairs) / 3
    different = sum(apart(own[a][both[a, b]], own[b][both[a, b]]) for a, b in pairs)
    different += sum(apart(own[n][there[n]], shared[n][there[n]]) for n in there)
    w = {key: x.detach().numpy() for key, x in network.named_parameters()}
    rebuilt = 0
    for n in there:
        decoded = (own[n] + shared[n]) @ w[f"decoders.{n}.weight"].T + w[f"decoders.{n}.bias"]
        rebuilt += ((decoded - came[n])[there[n]] ** 2).mean() / 3
    task = ((network(given)[:, 0] - given.truth) ** 2).mean().item()
    expected = task + 1.0 * similar + 0.3 * different + 1.0 * rebuilt
    assert network.loss(given).item() == pytest.approx(expected, rel=1e-5)
    assert (misa.SIMILARITY, misa.DIFFERENCE, misa.RECONSTRUCTION) == (1.0, 0.3, 1.0)
    assert torch.isfinite(network.loss(some(given, [0])))


def test_lfmim_s_loss_takes_each_tower_s_own_label():
    network, given = network_of("lfmim", CLASSES), batch()
    outputs = network.towers_of(given)

    def cross_entropy(name, labels, there):
        return torch.nn.functional.cross_entropy(outputs[name][there], labels[there].long(), reduction="sum") / 6

    own = torch.tensor([[1.0, 2.0, 3.0]] * 5 + [[0.0, torch.nan, 1.0]])
    labelled = replace(given, truths=own)
    everywhere, hears, sees = torch.ones(6) > 0, given.audio_lengths > 0, given.vision_lengths > 0
    expected = cross_entropy("all", given.truth, everywhere) + cross_entropy("text", own[:, 0], everywhere)
    expected = expected + cross_entropy("audio", torch.where(own[:, 1].isnan(), given.truth, own[:, 1]), hears)
    expected = expected + cross_entropy("vision", own[:, 2], sees)
    assert network.loss(labelled).item() == pytest.approx(expected.item(), rel=1e-5)
    alike = sum(
        cross_entropy(name, given.truth, there)
        for name, there in (("all", everywhere), ("text", everywhere), ("audio", hears), ("vision", sees))
    )
    assert network.loss(given).item() == pytest.approx(alike.item(), rel=1e-5)
    assert lfmim.LAYERS == 4


def test_self_mm_s_new_label():
    """y_m = 1, δ_s = .6, δ_m = .4: ½·1.5 + ½·(1 + .2) = 1.35; within ± 3; where δ_m is 0, the sample's own."""
    truth, own, joint = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.6, 4.0, 1.0]), torch.tensor([0.4, 0.5, 0.0])
    assert self_mm.new_label(truth, own, joint, 3.0).tolist() == pytest.approx([1.35, 3.0, 2.0])


def test_self_mm_s_memory():
    memory = self_mm.SampleMemory(4, 1)
    memory.labels[:] = torch.tensor([-1.0, -2.0, 1.0, 0.0])
    memory.store(torch.tensor([0, 1]), torch.tensor([[0.0], [2.0]]))
    assert memory.centres.tolist() == [[1.0], [0.0]], "no positive sample was seen: its centre stays"
    memory.store(torch.tensor([2, 3]), torch.tensor([[5.0], [99.0]]))
    assert memory.centres.tolist() == [[1.0], [5.0]], "a label of 0 belongs to neither"
    # at 4: (3 − 1) / 1 = 2
    assert memory.shift(torch.tensor([[4.0]])).item() == pytest.approx(2.0, rel=1e-4)


def test_self_mm_s_labels_stay_for_an_epoch_and_then_move_slowly():
    network, given = network_of("self-mm", INTENSITY), batch(intensity=True)
    network.begin(1)
    first = network.loss(given)
    # single modalities have weight tanh |y_s − y_m| = 0
    assert first.item() == pytest.approx((network(given)[:, 0] - given.truth).abs().mean().item(), rel=1e-9)
    with torch.no_grad():
        network.after(given)
    memory = network.memories["audio"]
    assert torch.allclose(memory.labels[:6], given.truth.float().to(memory.labels.dtype))
    network.begin(2)
    network.loss(given)
    features = {name: x.detach() for name, x in network.answers(given)[1].items()}
    shift = {name: network.memories[name].shift(x) for name, x in features.items()}
    with torch.no_grad():
        network.after(given)
    new = self_mm.new_label(given.truth, shift["audio"], shift["multimodal"], 3.0)
    expected = 1 / 3 * given.truth + 2 / 3 * new
    assert torch.allclose(memory.labels[:6], expected, atol=1e-6)
    assert torch.equal(network.memories["multimodal"].labels[:6], given.truth)
    answers, _ = network.answers(given)
    total = (answers["multimodal"][:, 0] - given.truth).abs().mean()
    for name in ("text", "audio", "vision"):
        own = network.memories[name].labels[:6]
        weight = torch.tanh((own - given.truth).abs()) * given.present(name)
        total = total + (weight * (answers[name][:, 0] - own).abs()).mean()
    assert network.loss(given).item() == pytest.approx(total.item(), rel=1e-9)


def test_mmim_s_loss_is_the_sum_of_its_terms():
    network, given = network_of("mmim", INTENSITY), some(batch(intensity=True), [0, 1, 4, 5, 0, 1, 4, 5, 0, 1, 4, 5])
    network.begin(1)
    vectors = network.encoded(given)
    fused = network.fused(vectors)
    task = (network.output(fused)[:, 0] - given.truth).abs().mean()
    contrast = sum(info_nce(vectors[n], network.predict[n](fused)) for n in ("text", "audio", "vision"))
    bounds, entropy = 0, 0
    for n in ("audio", "vision"):
        bound = network.bounds[n]
        spread = torch.tanh(bound.spread(vectors["text"]))
        bounds = bounds + gaussian_likelihood(bound.mean(vectors["text"]), spread, vectors[n])
        mapped = torch.tanh(bound.volume(vectors[n]))
        parts = [log_volume(mapped[chosen]) for chosen in (given.truth > 0, given.truth <= 0)]
        entropy = entropy + 0.25 * (parts[0] + parts[1])
    expected = task + 0.1 * contrast - 0.1 * bounds - 0.1 * entropy
    assert network.loss(given).item() == pytest.approx(expected.item(), rel=1e-6)
    assert network.bound_loss(given).item() == pytest.approx(-bounds.item(), rel=1e-6)
    again = network.loss(given)
    assert again.item() != pytest.approx(expected.item(), rel=1e-9), "the batch before counts for the entropy"
    few = network_of("mmim", INTENSITY)
    few.begin(1)
    assert torch.isfinite(few.loss(some(given, [0])))
    assert mmim.FEWEST == 5


def test_mmim_trains_its_bounds_apart():
    network = network_of("mmim", INTENSITY)
    first, second = network.stages()
    own = {id(p) for group in first.groups for p in group.parameters}
    assert own == {id(p) for key, p in network.named_parameters() if "bounds" in key and "volume" not in key}
    assert not own & {id(p) for group in second.groups for p in group.parameters}


def test_av_mc_s_passes():
    network, given = network_of("av-mc", INTENSITY), batch(intensity=True)
    own = torch.stack([given.truth + 1, given.truth - 1, given.truth * 0.5], dim=1)
    given = replace(given, truths=own)
    means = network.means(given)
    answers = network.answers(given, means)
    labels = {"all": given.truth, "text": own[:, 0], "audio": own[:, 1], "vision": own[:, 2]}

    def part(found, name, order=slice(None)):
        there = 1 if name == "all" else given.present(name)
        return (found[name][:, 0] - labels[name][order]).abs() * there

    clean = sum(av_mc.WEIGHT[name] * part(answers, name).mean() for name in labels)
    assert network.one_pass(given, means).item() == pytest.approx(clean.item(), rel=1e-9)
    partner, share = torch.tensor([1, 0, 3, 2, 5, 4]), 0.25
    both = given.present("audio") & given.present("audio")[partner]
    shares = torch.where(both, share, 1.0)
    blend = shares[:, None] * means["audio"] + (1 - shares[:, None]) * means["audio"][partner]
    mixed = network.answers(given, means | {"audio": blend})
    expected = sum(av_mc.WEIGHT[name] * part(mixed, name).mean() for name in ("text", "vision"))
    for name in ("audio", "all"):
        two = shares * part(mixed, name) + (1 - shares) * part(mixed, name, partner)
        expected = expected + av_mc.WEIGHT[name] * two.mean()
    assert network.mixed_pass(given, means, "audio", share, partner).item() == pytest.approx(expected.item(), rel=1e-9)
    network.train()
    assert torch.isfinite(network.loss(some(given, [0]))), "a batch of one is normed as in testing"
