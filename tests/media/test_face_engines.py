"""Engines of faces: what they write is hidden for a while only, and their model is fetched by a command alone."""

from __future__ import annotations

import os
import threading

from msekit.media.face_engines import silent


def test_stderr_comes_back_after_two_silences_that_overlap() -> None:
    before = os.fstat(2)
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with silent():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with silent():
        leave.set()
        thread.join()
        assert not os.path.samestat(os.fstat(2), before), "the second is silent still"
    assert os.path.samestat(os.fstat(2), before)
