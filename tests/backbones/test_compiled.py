"""The pass as one compiled program: what comes out of it is what the plain pass gives.

The programs are traced and differentiated as on a GPU and then run operator by operator: making kernels takes a minute.
"""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from whole_pass import TEXTS, model_of, outcome

from msekit.backbones.load import load_backbone
from msekit.backbones.passes import compiled
from msekit.backbones.passes.compiled import MULTIPLE
from msekit.data.catalogue import DATASETS
from msekit.distributed.zero import check_sharding
from msekit.errors import MsekitError
from msekit.settings.resolve import resolve
from msekit.training.build import load_frozen


@pytest.fixture(autouse=True)
def without_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "held", "checkpointing", "prompt_first"),
    [
        ("qwen1", "none", False, True),
        ("tiny-llama", "nf4", True, False),
    ],
)
def test_what_comes_out_is_what_the_plain_pass_gives(kind, held, checkpointing, prompt_first, name_of):
    backbone = load_backbone(name_of(kind), held, "fp32", "cpu", checkpointing)
    short, long = (
        model_of(backbone, DATASETS["synthetic-erc"], prompt_first, texts)
        for texts in (TEXTS, ("a text that is longer than any other one here", "yes", "no"))
    )
    plain = [outcome(*short), outcome(*long)]
    backbone.compile()
    made = []
    for case, exact in zip((short, long), plain, strict=True):
        for mine, theirs in zip(outcome(*case), exact, strict=True):
            assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        made.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert made[0] == made[1] > 0, "no program is made again for other lengths"


def test_columns_are_padded_so_that_few_sizes_come_up(tiny, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(tiny, "compiled", lambda sequence: seen.append(sequence) or tiny._logits(sequence))
    for texts in (("ok", "", "no"), TEXTS):
        model, batch = model_of(tiny, DATASETS["synthetic-msa"], texts=texts)
        scores = model.score(batch)
        with monkeypatch.context() as without:
            without.setattr(tiny, "compiled", None)
            assert (scores - model.score(batch)).abs().max() <= 1e-5 * scores.abs().max()
    sizes = [sequence.embeddings.shape[1] for sequence in seen]
    assert len(sizes) == 2
    assert all(size % MULTIPLE == 0 for size in sizes)


def test_no_number_of_the_llm_is_an_input_in_the_hosts_memory(tiny, monkeypatch: pytest.MonkeyPatch):
    # such an input keeps a program out of CUDA graphs
    numbers = []

    def look(program, inputs):
        numbers.extend(each for each in inputs if isinstance(each, float) or getattr(each, "shape", None) == ())
        return program

    monkeypatch.setattr(compiled, "BACKEND", look)
    monkeypatch.setattr(tiny, "compiled", None)
    tiny.compile()
    outcome(*model_of(tiny, DATASETS["synthetic-erc"]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not numbers


def test_an_llm_that_cannot_be_compiled_is_refused_with_the_reason(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu")
    backbone.model.model.norm.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    backbone.compile()
    with pytest.raises(MsekitError, match=r"cannot be compiled.*graph_break") as error:
        outcome(*model_of(backbone, DATASETS["synthetic-erc"]))
    assert "Leave model.compile out" in str(error.value.fix)


def test_what_does_not_go_with_it_is_refused_at_the_start():
    with pytest.raises(MsekitError, match="ZeRO-3") as error:
        check_sharding("none", compiled=True)
    assert error.value.where == "model.compile"


def test_a_run_that_asks_for_it_gets_it():
    given = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "none"}
    for asked in (False, True):
        config = resolve(given, task="erc", overrides=[f"model.compile={asked}"])
        assert (load_frozen("tiny-llama", config.model, False).compiled is not None) is asked
