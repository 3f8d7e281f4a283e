"""The pass as one compiled program: what comes out of it is what the plain pass gives.

The programs are traced and differentiated as on a GPU and then run operator by operator: making kernels takes a minute.
"""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from whole_pass import TEXTS, model_of, outcome, outcome_by

from msekit.backbones.holding import MULTIPLE
from msekit.backbones.load import load_backbone
from msekit.backbones.passes import compiled
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
    backbone = load_backbone(name_of(kind), held, "fp32", "cpu", checkpointing, compiled=True)
    short, long = (
        model_of(backbone, DATASETS["synthetic-erc"], prompt_first, texts)
        for texts in (TEXTS, ("a text that is longer than any other one here", "yes", "no"))
    )
    plain = [outcome_by((), *short), outcome_by((), *long)]
    made = []
    for case, exact in zip((short, long), plain, strict=True):
        for mine, theirs in zip(outcome(*case), exact, strict=True):
            # rounding alone: the prefix without a compiled pass is 1.1e-5 apart in a gradient here
            assert (mine - theirs).abs().max() <= 3e-5 * theirs.abs().max()
        made.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert made[0] == made[1] > 0, "no program is made again for other lengths"


@pytest.mark.parametrize("prompt_first", [False, True])
def test_columns_are_padded_so_that_few_sizes_come_up(prompt_first: bool, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def spied(compute, **_):
        return lambda sequence: seen.append(sequence) or compute(sequence)

    monkeypatch.setattr(torch, "compile", spied)
    backbone = load_backbone("tiny-llama", device="cpu", compiled=True)
    for texts in (("ok", "", "no"), TEXTS):
        model, batch = model_of(backbone, DATASETS["synthetic-msa"], prompt_first, texts)
        scores, loss = model.score(batch), model(batch)
        with backbone.passes.limited(()):
            assert (scores - model.score(batch)).abs().max() <= 1e-5 * scores.abs().max()
            assert torch.allclose(loss, model(batch), rtol=1e-5)
    sizes = [sequence.mask.shape[-1] for sequence in seen]  # with the prefix's, as attention's kernels see them
    assert len(sizes) == 4
    assert all(size % MULTIPLE == 0 for size in sizes)
    assert {sequence.mask.ndim for sequence in seen} == {2, 4}


@pytest.mark.slow
def test_no_number_of_the_llm_is_an_input_in_the_hosts_memory(monkeypatch: pytest.MonkeyPatch):
    # such an input keeps a program out of CUDA graphs
    numbers = []

    def look(program, inputs):
        numbers.extend(each for each in inputs if isinstance(each, float) or getattr(each, "shape", None) == ())
        return program

    monkeypatch.setattr(compiled, "BACKEND", look)
    settings = {name: getattr(torch._dynamo.config, name) for name in ("recompile_limit", "specialize_float")}
    outcome(*model_of(load_backbone("tiny-llama", device="cpu", compiled=True), DATASETS["synthetic-erc"]))
    for name, before in settings.items():
        assert getattr(torch._dynamo.config, name) == before, "what others compile is left alone"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not numbers


@pytest.mark.slow
def test_an_llm_that_cannot_be_compiled_is_refused_with_the_reason(name_of):
    backbone = load_backbone(name_of("tiny-llama"), device="cpu", compiled=True)
    backbone.model.model.norm.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    with pytest.raises(MsekitError, match=r"cannot be compiled.*graph_break") as error:
        outcome(*model_of(backbone, DATASETS["synthetic-erc"]))
    assert "Leave model.compile out" in str(error.value.fix)


def test_what_does_not_go_with_it_is_refused_at_the_start():
    with pytest.raises(MsekitError, match="ZeRO-3") as error:
        check_sharding("none", compiled=True)
    assert error.value.where == "model.compile"


@pytest.mark.parametrize(
    ("override", "compiles"),
    [("compile=false", False), ("compile=true", True), ("passes=[prefix, compiled]", True), ("passes=plain", False)],
)
def test_a_run_that_asks_for_it_gets_it(override: str, compiles: bool):
    given = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "none"}
    config = resolve(given, task="erc", overrides=[f"model.{override}"])
    passes = load_frozen("tiny-llama", config.model, False).passes
    assert ("compiled" in passes.uses) is compiles
    assert ("compiled" in passes.refused) is not compiles
    assert not {"written-out", "compiled"} <= set(passes.uses)
