"""The thread that makes batches ahead."""

from __future__ import annotations

import threading
import time

import pytest

from msekit.data.batches.ahead import ahead


def test_everything_comes_in_order_and_from_one_other_thread():
    made_by = set()

    def square(number: int) -> int:
        made_by.add(threading.get_ident())
        return number * number

    assert list(ahead(square, range(20))) == [number * number for number in range(20)]
    assert len(made_by) == 1
    assert threading.get_ident() not in made_by


def test_the_next_are_made_while_one_is_used_but_not_more_than_depth():
    started: list[int] = []
    made = ahead(lambda number: started.append(number) or number, range(100), depth=2)
    assert next(made) == 0
    deadline = time.monotonic() + 5
    while len(started) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert started == [0, 1, 2]
    made.close()


def test_an_error_is_raised_where_its_result_is_due():
    def refuse_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    made = ahead(refuse_three, range(5))
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(made)


def test_closing_it_makes_no_more():
    started: list[int] = []
    made = ahead(lambda number: started.append(number) or time.sleep(0.01), range(100), depth=4)
    next(made)
    made.close()
    count = len(started)
    time.sleep(0.05)
    assert len(started) == count <= 6
