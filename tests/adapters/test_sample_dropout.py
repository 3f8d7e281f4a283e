"""Dropout that a seed, an epoch and a sample decide: its share, and that nothing else has a say."""

from __future__ import annotations

import torch

from msekit.adapters.sample_dropout import SampleDropout, draws


def dropped(share: float, draw: torch.Tensor, place: int = 1, numbers: int = 1000) -> torch.Tensor:
    return SampleDropout(share, place).train()(torch.ones(len(draw), numbers), draw) == 0


def test_the_share_is_left_out_and_the_rest_scaled_up():
    layer = SampleDropout(0.3, 1).train()
    rows = layer(torch.ones(200, 1000), draws(1, 0, torch.arange(200)))
    assert abs(float((rows == 0).float().mean()) - 0.3) < 0.005  # four deviations of 200,000 draws
    assert torch.allclose(rows[rows != 0], torch.tensor(1 / 0.7))
    # neither along a sample nor along a place is the share another one
    assert float((rows == 0).float().mean(dim=1).std()) < 1.3 * (0.21 / 1000) ** 0.5
    assert float((rows == 0).float().mean(dim=0).std()) < 1.3 * (0.21 / 200) ** 0.5


def test_choices_are_a_samples_own():
    together = dropped(0.5, draws(7, 3, torch.tensor([5, 9, 2])))
    alone = dropped(0.5, draws(7, 3, torch.tensor([9])))
    assert torch.equal(together[1:2], alone)


def test_seed_epoch_sample_and_place_decide():
    first = dropped(0.5, draws(1, 0, torch.tensor([0])))
    others = [
        dropped(0.5, draws(2, 0, torch.tensor([0]))),
        dropped(0.5, draws(1, 1, torch.tensor([0]))),
        dropped(0.5, draws(1, 0, torch.tensor([1]))),
        dropped(0.5, draws(1, 0, torch.tensor([0])), place=2),
    ]
    for other in others:  # half of the places agree by chance; five deviations are 0.08
        assert 0.42 < float((first == other).float().mean()) < 0.58


def test_choices_are_the_same_everywhere():
    """As computed by the formula with whole numbers of any size."""

    def mixed(number: int) -> int:
        number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
        return number ^ number >> 31

    step = 0x9E3779B97F4A7C15
    draw = mixed((mixed((6 + 4 * step) % 2**64) + 1111 * step) % 2**64)
    expected = [mixed((draw + (column + (3 << 32)) * step) % 2**64) >> 40 < 0.3 * 2**24 for column in range(50)]
    assert dropped(0.3, draws(1111, 4, torch.tensor([6])), place=3, numbers=50)[0].tolist() == expected


def test_nothing_is_left_out_of_an_evaluation():
    rows, draw = torch.randn(3, 10), draws(1, 0, torch.arange(3))
    assert torch.equal(SampleDropout(0.5, 1).eval()(rows, draw), rows)
    assert torch.equal(SampleDropout(0.5, 1).train()(rows, None), rows)
    assert torch.equal(SampleDropout(0.0, 1).train()(rows, draw), rows)
