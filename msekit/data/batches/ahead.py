"""`ahead`: a thread makes the next batches while a step runs, so reading, noise, padding and pinning take no time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
T = TypeVar("T")


def ahead(make: Callable[[J], T], jobs: Iterable[J], depth: int = 2) -> Generator[T]:
    """Yield `make(job)` of every job, in order, and compute up to `depth` of them in advance.

    One thread computes them all in order, so the results equal a plain loop's. Worker processes, the usual way, would
    copy every batch once more between processes, while the samples lie in a memory-mapped table already.

    Args:
        make: Called in the thread, with one job at a time.
        jobs: What `make` is called with.
        depth: How many results wait at most.

    Raises:
        Exception: Whatever `make` raised, at the turn of its result.
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
