"""Trainings take the steps that the golden files tell, as far as rounding lets one see.

Sums in another order (another CPU, another release of a library) move a number's last digits, so the bound is how far
two other orders moved the recorded numbers, times a factor. What moves them less is not seen here: that a change
computes nothing new shows in files recorded on one machine before and after it, which are then equal.
"""

from __future__ import annotations

import pytest

from tests.golden.record import CASES, FOLDER, Row, distance, lines, read, trajectory

ORDERS = 8
"""How many times as far as the two orders that were measured another one may move a number."""


def recorded(name: str) -> tuple[list[Row], tuple[float, float]]:
    rows, rounding = read((FOLDER / f"{name}.txt").read_text(encoding="utf-8"))
    assert len(rows) == 12
    assert 0 < max(rounding) < 1e-4, "a bound that lets anything pass"
    return rows, (ORDERS * rounding[0], ORDERS * rounding[1])


@pytest.mark.parametrize("name", CASES)
def test_the_steps_are_those_of_the_file(name: str):
    rows, bound = recorded(name)
    now = trajectory(name)
    apart = distance(rows, now)
    assert apart[0] <= bound[0], f"losses:\n{lines(now)}"
    assert apart[1] <= bound[1], f"gradient norms:\n{lines(now)}"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("quickstart", "data.noise=0.301"),
        ("quickstart", "optim.lr=2.002e-3"),
        ("paper", "optim.eps=1.01e-4"),
        ("prompt-first", "loss.expected=3.003"),
    ],
)
def test_a_computation_that_changed_a_little_is_seen(name: str, change: str):
    rows, bound = recorded(name)
    apart = distance(rows, trajectory(name, change))
    assert apart[0] > bound[0]
    assert apart[1] > bound[1]


def test_every_file_is_of_a_case():
    assert {file.stem for file in FOLDER.glob("*.txt")} == set(CASES)


def test_nine_digits_tell_a_number_from_its_neighbours():
    row = Row(1, 6.37333679199, 0.81258481741)
    assert read("# rounding: loss 0 norm 0\n" + lines([row]))[0] == [Row(1, 6.37333679, 0.812584817)]
