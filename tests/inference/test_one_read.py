"""Predictions wait for a GPU once a batch, when the next one is on its way: nothing else is read or copied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import Waits, backbone_there, batch_here, fake_gpu, put_there
from torch.utils._python_dispatch import _disable_current_modes

from msekit.backbones.load import load_backbone
from msekit.data.batches.batch import Batch, Collator
from msekit.errors import MsekitError
from msekit.gpu import OnItsWay
from msekit.inference.load import load_run
from msekit.inference.plugin import PlugIn
from msekit.model import text_states

TEXTS = [f"I did not expect {'that ' * number}at all." for number in range(5)]


@pytest.fixture
def there(erc_run: Path, monkeypatch: pytest.MonkeyPatch) -> PlugIn:
    """A plug-in of recipe `best`, which reads hidden states, on a GPU that is not there."""
    backbone = load_backbone("tiny-llama", device="cpu", passes=("prefix", "last-layer", "lean-parts"))
    backbone.model.set_attn_implementation("sdpa")
    backbone._takes_scores = True
    plug_in = load_run(erc_run, backbone)
    assert plug_in._states_wanted is not None
    with fake_gpu(monkeypatch):
        backbone_there(backbone)
        put_there(plug_in.model)
    return plug_in


def made_here(collate: Any) -> Any:
    """A collator whose numbers are made in main memory, where they are known, and then forgotten."""

    def made(self: Collator, indices: Any, counted: bool = True) -> Batch:
        with _disable_current_modes():
            batch = collate(replace(self, states=None), indices, counted)
        return replace(batch_here(batch), text_states=self.states and self.states(indices))

    return made


def test_a_batch_is_waited_for_once_when_the_next_one_is_launched(there: PlugIn, monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    score, arrived = there.model.score, OnItsWay.arrived

    def launched(batch: Batch) -> torch.Tensor:
        events.append("launched")
        return score(batch)

    def waited(self: OnItsWay) -> Any:
        events.append("waited")
        shape = arrived(self).shape
        return SimpleNamespace(numpy=lambda: np.full(shape, -1.0, np.float32))

    with fake_gpu(monkeypatch):
        nothing = SimpleNamespace(record=lambda stream: None, synchronize=lambda: None)
        monkeypatch.setattr(torch.cuda, "Event", lambda: nothing)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *sizes, pin_memory=False, **how: empty(*sizes, **how))
        monkeypatch.setattr(Collator, "__call__", made_here(Collator.__call__))
        monkeypatch.setattr(there.model, "score", launched)
        monkeypatch.setattr(OnItsWay, "arrived", waited)
        there.predict(TEXTS[:2])  # constants are embedded once
        events.clear()
        with Waits() as waits:
            predictions = there.predict(TEXTS, batch_size=2)
    assert not waits.found
    assert events == ["launched", "launched", "waited", "launched", "waited", "waited"]
    assert [len(one.scores) for one in predictions] == [len(there.description.dataset.labels)] * 5
    assert waits.operators["mm"] + waits.operators["addmm"] > 10, "the LLM was run"


def test_states_beyond_the_llm_s_range_are_still_an_error(erc_run: Path, monkeypatch: pytest.MonkeyPatch):
    plug_in, read = load_run(erc_run), text_states.states_there

    def overflown(*given: Any) -> torch.Tensor:
        states = read(*given)
        states[1, 0, 0, 3] = torch.inf
        return states

    monkeypatch.setattr(text_states, "states_there", overflown)
    with pytest.raises(MsekitError, match="beyond the range of torch"):
        plug_in.predict(TEXTS, batch_size=2)
