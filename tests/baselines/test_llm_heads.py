"""mag-head and chfn-head: the shift, the frozen LLM behind it, the head; what trains and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rival_samples import CLASSES, batch, some

from msekit.backbones.backbone import Backbone
from msekit.baselines.run import run_baseline
from msekit.baselines.texts import OfLLM, TextFrom, Texts
from msekit.baselines.trainer import make_network
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
CUE = 1
NAMES = {"mag-head": "mag", "chfn-head": "chfn"}


def network_of(name: str, tiny: Backbone):
    torch.manual_seed(0)
    return make_network(
        name, replace(CLASSES, vocabulary=0), Texts({}, of_llm=OfLLM(tiny, CUE, DATASETS["synthetic-erc"]))
    ).eval()


def given():
    made = batch()
    return replace(made, audio=made.audio.float(), vision=made.vision.float(), truth=made.truth.float())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_adapter_the_llm_and_a_head_one_text_at_a_time(name, tiny: Backbone):
    network, many = network_of(name, tiny), given()
    with torch.no_grad():
        outputs = network(many)
        assert torch.allclose(network(some(many, list(range(6)), padding=2)), outputs, atol=1e-5)
        for place, length in enumerate(many.text_lengths.tolist()):
            one = some(many, [place])
            ids = one.text_ids[:, :length]
            mask = torch.ones(1, length, dtype=torch.long)
            mask[:, length - CUE :] = 0
            frames = []
            for modality in ("audio", "vision"):
                lengths = getattr(one, f"{modality}_lengths")
                frames += [getattr(one, modality)[:, : int(lengths)], lengths]
            shifted = network.adapter(tiny.embed(ids), mask, *frames)
            opening = tiny.embed(torch.tensor([tiny.bos], dtype=torch.long))
            read = tiny.model(inputs_embeds=torch.cat([opening, shifted], dim=1), output_hidden_states=True)
            expected = network.output(read.hidden_states[-1][:, -1])
            assert torch.allclose(outputs[place], expected[0], atol=1e-5)


@pytest.mark.parametrize(("name", "adapter"), NAMES.items())
def test_the_adapter_and_the_head_train_and_nothing_else(name, adapter, tiny: Backbone):
    network = network_of(name, tiny)
    d, frames = tiny.text_dim, 6 + 5
    two_gates = (d + 6) * d + d + (d + 5) * d + d + frames * d + 2 * d + 2 * d
    three_maps = 3 * d * d + frames * d + 2 * d
    expected = (two_gates if adapter == "mag" else three_maps) + d * 4 + 4
    assert sum(p.numel() for p in network.parameters()) == expected
    network(given()).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad is None for p in tiny.model.parameters())


def test_a_run_through_the_llm(tmp_path: Path):
    asked = {"spec": DATASETS["synthetic-erc"], "seed": 1, "epochs": 1, "limit_train": 16, "reporter": QUIET}
    text = TextFrom(backbone="tiny-llama")
    report = run_baseline("mag-head", output=tmp_path / "run", text=text, **asked)
    assert (report["text_from"], report["backbone"]) == ("llm", "tiny-llama")
    assert report["integrity"]["metrics"]["acc"] is not None
    assert run_baseline("mag-head", output=tmp_path / "run", text=text, **asked) == report
    with pytest.raises(MsekitError, match="none is named"):
        run_baseline("mag-head", output=tmp_path / "none", **asked)
    with pytest.raises(MsekitError, match="text of its own"):
        run_baseline("mag-head", output=tmp_path / "none", text=TextFrom("backbone", "tiny-llama"), **asked)
