"""Answers written token by token are those that the scores of the whole trie say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msekit.adapters.mse import MSEAdapter
from msekit.adapters.sizes import STATISTICS
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DatasetSpec
from msekit.model.assemble import assemble
from msekit.model.decoding import write_answers
from msekit.model.make_adapter import make_adapter
from msekit.settings.config import AdapterConfig

MSA = DatasetSpec(name="x", task="msa", layout="msa-pickle", range=(-3.0, 3.0))
ERC = DatasetSpec(name="x", task="erc", layout="erc-pickle", labels=tuple(f"c{i}" for i in range(12)))


def batch_of(backbone, size=12) -> Batch:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 9, (size,), generator=generator)
    return Batch(
        index=torch.arange(size),
        text_ids=torch.randint(40, 90, (size, 8), generator=generator),
        text_lengths=lengths.clamp(max=8),
        audio=torch.randn(size, 7, 6, generator=generator),
        audio_lengths=torch.randint(0, 8, (size,), generator=generator),
        vision=None,
        vision_lengths=None,
        label=torch.zeros(size, dtype=torch.long),
        weight=torch.ones(size),
        audio_summary=torch.randn(size, STATISTICS * 6, generator=generator),
        text_states=torch.randn(size, 2, 2, backbone.text_dim, generator=generator),
    )


@pytest.mark.parametrize("order", ["paper", "prompt-first"])
@pytest.mark.parametrize("spec", [MSA, ERC], ids=["intensities", "12 classes with end tokens"])
@pytest.mark.parametrize("opinionated", [False, True])
def test_written_is_greedy(tiny, spec, opinionated, order):
    if opinionated:
        settings = AdapterConfig(name="mse-states", depths=(0.0, 1.0), audio_hidden=8, hidden=16)
        adapter = make_adapter(settings, tiny.text_dim, 6, 0, answers=spec, text_scale=0.02)
        torch.manual_seed(0)
        for parameter in adapter.opinion_head.parameters():  # opinions as strong as the LLM's, and of every kind
            torch.nn.init.normal_(parameter)
        adapter.llm_weight.fill_(0.7)
    else:
        torch.manual_seed(0)
        adapter = MSEAdapter(tiny.text_dim, 6, 0, 8, 4, 3, conditioning="unit")
    model, batch = assemble(tiny, adapter.eval(), spec, order, 8), batch_of(tiny)
    written = write_answers(model, batch)
    greedy = model.labels.predict(model.score(batch).numpy(), "greedy")
    assert [model.labels.names.index(name) for name in written] == model.labels.indices(greedy).tolist()
    if opinionated:
        assert len(set(written)) > 2
        alone = model.labels.predict(model.opinion(batch).detach().numpy(), "greedy")
        assert (np.asarray(greedy) != alone).any()  # the LLM has a say
