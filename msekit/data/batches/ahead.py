"""Batches made by a thread while the step before them runs: reading, noise, padding and pinning cost a step no time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
T = TypeVar("T")


def ahead(make: Callable[[J], T], jobs: Iterable[J], depth: int = 2) -> Generator[T]:
    """`make` of every job, in order, up to `depth` of them before they are asked for.

    One thread makes them all, so what it makes is what a plain loop would. A process per worker, the usual way, would
    copy every batch once more between processes: the samples lie in a memory-mapped table already.

    Args:
        make: Called in the thread, with one job at a time.
        jobs: What to make.
        depth: How many are ready at most.

    Raises:
        Exception: Whatever `make` raised, where its result is due.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="collate") as thread:
        try:
            for job in jobs:
                waiting.append(thread.submit(make, job))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
