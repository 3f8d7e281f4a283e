"""RequestQueue: requests from many clients → batches on one backbone. The queue is bounded.

One thread computes. It joins waiting requests for the same plug-in into a batch, so fifty clients cost little more than
a single client; a request that meets a full queue is refused at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from msekit.errors import MsekitError, brief
from msekit.inference.host import PlugInHost
from msekit.inference.prediction import Prediction
from msekit.inference.samples import Prepared


class BusyError(MsekitError):
    """The queue is full. The same request may succeed a moment later."""


@dataclass(frozen=True)
class _Job:
    plug_in: str
    samples: Sequence[Prepared]
    answer: Future[list[Prediction]]


class RequestQueue:
    """The queue in front of the plug-ins, with the thread that empties it.

    Args:
        host: The plug-ins.
        batch_size: Most samples in a batch.
        longest: Most samples that may wait.
    """

    def __init__(self, host: PlugInHost, batch_size: int = 16, longest: int = 512) -> None:
        self.host, self.batch_size, self.longest = host, batch_size, longest
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="msekit-queue", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of samples in the queue."""
        return sum(len(job.samples) for job in list(self._waiting))

    @property
    def alive(self) -> bool:
        """Whether samples are taken and answered."""
        return self._open and self._thread.is_alive()

    def submit(self, plug_in: str, samples: Sequence[Prepared]) -> Future[list[Prediction]]:
        """Queue samples for a plug-in.

        Raises:
            BusyError: The queue has no room for them, or is closed.
        """
        job = _Job(plug_in, samples, Future())
        with self._changed:
            if not self._open or self.waiting + len(samples) > self.longest:
                raise BusyError("the server is busy", fix="Try again in a moment.")
            self._waiting.append(job)
            self._changed.notify()
        return job.answer

    def close(self) -> None:
        """Answer what waits, then stop the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            try:
                jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
                if not jobs:  # every client is gone
                    continue
                plug_in = self.host.plug_in(jobs[0].plug_in)
                samples = [sample for job in jobs for sample in job.samples]
                predictions = plug_in.predict_prepared(samples, batch_size=self.batch_size)
            except BaseException as error:  # a library's panic too: the clients must get it, the thread must live on
                known = error if isinstance(error, Exception) else RuntimeError(brief(error))
                for job in jobs:
                    job.answer.set_exception(known)
                continue
            start = 0
            for job in jobs:
                job.answer.set_result(predictions[start : start + len(job.samples)])
                start += len(job.samples)

    def _next(self) -> list[_Job]:
        """Take the oldest job and later ones for the same plug-in that fit into a batch; none once closed and empty."""
        with self._changed:
            while self._open and not self._waiting:
                self._changed.wait()
            if not self._waiting:
                return []
            taken = [self._waiting.popleft()]
            room = self.batch_size - len(taken[0].samples)
            for job in list(self._waiting):
                if job.plug_in == taken[0].plug_in and len(job.samples) <= room:
                    self._waiting.remove(job)
                    taken.append(job)
                    room -= len(job.samples)
            return taken
