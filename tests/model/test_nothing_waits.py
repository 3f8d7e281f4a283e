"""From a batch to what is read of a step, nobody waits for a GPU: every adapter, task, layout, alone and together."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_cuda import GPU, Waits, backbone_there, batch_here, fake_gpu, put_there
from torch._subclasses.fake_tensor import FakeTensor

from msekit.adapters.sample_dropout import draws
from msekit.adapters.sizes import ADAPTERS, STATISTICS
from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.gpu import one_late
from msekit.model.labels import LabelSpace
from msekit.model.losses import Objective
from msekit.model.make_adapter import make_adapter
from msekit.model.mse_model import MSEModel, edges_of, losses_of
from msekit.model.prompt import PromptLayout
from msekit.settings.config import OptimConfig, RunConfig
from msekit.settings.resolve import resolve
from msekit.training.engine import PlainEngine
from msekit.training.joint_step import JointStep
from msekit.training.step import Launched, Step, read_steps

AUDIO, VISION, SIZE = (9, 6), (5, 4), 3
SHORTER = ("prefix", "last-layer", "lean-parts")
ALONE = SimpleNamespace(num_processes=1, prepare=lambda model: model)


def backbone_of(passes: str | tuple[str, ...]) -> Backbone:
    backbone = load_backbone("tiny-llama", device="cpu", passes=passes)
    backbone.model.set_attn_implementation("sdpa")
    backbone._takes_scores = True
    return backbone


def config_of(name: str, task: str, recipe: str, *overrides: str) -> RunConfig:
    given = {"backbone": "tiny-llama", "dataset": f"synthetic-{task}", "output": "none", "recipe": recipe}
    return resolve(given, task=task, overrides=[f"adapter.name={name}", *overrides])


def model_of(backbone: Backbone, config: RunConfig, seed: int) -> MSEModel:
    """As `build` makes it, with the loss of the recipe."""
    spec: DatasetSpec = DATASETS[config.dataset]
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt, config.layout)
    labels = LabelSpace(spec, backbone.encode, backbone.end)
    absent = config.data.on_missing == "learned"
    adapter = make_adapter(
        config.adapter, 64, AUDIO[1], VISION[1], answers=spec, text_scale=0.1, learned_absent=absent, seed=seed
    )
    model = MSEModel(backbone, adapter, layout, labels)
    if config.loss.scores_every_label or ADAPTERS[config.adapter.name].has_opinion:
        model.objective = Objective(config.loss, labels, np.arange(len(labels)), backbone.decode)
    model.adapter.train()
    return model


def batch_of(config: RunConfig) -> Batch:
    """With everything that any adapter reads."""
    states = ADAPTERS[config.adapter.name].has_opinion
    return Batch(
        index=torch.arange(SIZE),
        text_ids=torch.zeros(SIZE, 7, dtype=torch.long),
        text_lengths=torch.arange(SIZE),
        audio=torch.zeros(SIZE, *AUDIO),
        audio_lengths=torch.arange(SIZE),
        vision=torch.zeros(SIZE, *VISION),
        vision_lengths=torch.arange(SIZE),
        label=torch.arange(SIZE),
        weight=torch.ones(SIZE),
        context_lengths=torch.zeros(SIZE, dtype=torch.long),
        audio_summary=torch.zeros(SIZE, STATISTICS * AUDIO[1]) if states else None,
        vision_summary=torch.zeros(SIZE, STATISTICS * VISION[1]) if states else None,
        text_states=torch.zeros(SIZE, len(config.adapter.depths), 2, 64) if states else None,
        draw=draws(1, 0, torch.arange(SIZE)),
    )


@pytest.fixture(scope="module")
def backbones(own_cache: object) -> dict[str, Backbone]:
    """LLMs on a GPU that is not there, by layout: one takes shorter ways, the other the plain one."""
    made = {"paper": backbone_of(SHORTER), "prompt-first": backbone_of("plain")}
    _ = [backbone.passes for backbone in made.values()]
    with pytest.MonkeyPatch.context() as patch, fake_gpu(patch):
        _ = [backbone_there(backbone) for backbone in made.values()]
    return made


def stepped(models: list[MSEModel], batches: list[Batch]) -> list[Launched]:
    """A step as `Together.step` takes it, but for the backward pass, which needs a driver."""
    losses = losses_of(models, [batch.to(GPU) for batch in batches])
    for model in models:
        for parameter in model.adapter.parameters():
            parameter.grad = torch.zeros_like(parameter)
    engines = [PlainEngine(model, ALONE, OptimConfig()) for model in models]
    norms = JointStep(engines).launch(engines, [1e-3] * len(models))
    return [Launched(loss.detach(), norm, 1e-3, False, False) for loss, norm in zip(losses, norms, strict=True)]


FIRST = ("mse", "mse-states")
"""Adapters of which every quick run of the tests has one case."""
CASES = [
    pytest.param(name, task, layout, marks=() if name in FIRST and task == "msa" else pytest.mark.slow)
    for name in ADAPTERS
    for task in ("erc", "msa")
    for layout in ("paper", "prompt-first")
]


@pytest.mark.parametrize(("name", "task", "layout"), CASES)
def test_nothing_waits_between_a_batch_and_the_step(
    backbones: dict[str, Backbone], name: str, task: str, layout: str, monkeypatch: pytest.MonkeyPatch
):
    recipe = "best" if ADAPTERS[name].has_opinion else "kit"
    config = config_of(name, task, recipe).model_copy(update={"layout": layout})
    models = [model_of(backbones[layout], config, seed) for seed in range(2)]
    with fake_gpu(monkeypatch):
        _ = [put_there(model) for model in models]
        batch = batch_here(batch_of(config)).pinned_for(GPU)
        for part in (models[0].for_training, models[0].for_scoring):
            part(batch.to(GPU))  # constants are embedded once
        with Waits() as waits:
            stepped(models, [batch, batch])
            for model in models:
                model.adapter.eval()
            edges = edges_of(models, batch.to(GPU))
    assert not waits.found
    assert [each.joint.device for each in edges] == [GPU, GPU]
    assert waits.operators["mm"] > 10, "the LLM was run"
    assert (models[0].prefix is None) == (layout == "prompt-first")


def test_what_is_waited_for_is_seen(monkeypatch: pytest.MonkeyPatch):
    with fake_gpu(monkeypatch):
        there, here = torch.zeros(3, device=GPU), torch.zeros(3)
        with Waits() as waits:
            float(there[0])
            bool((there > 0).any())
            torch.ops.aten.nonzero.default(there)
            there.cpu()
            here.to(GPU)
            here.to(GPU, non_blocking=True)
            here.pin_memory().to(GPU, non_blocking=True)
            torch.empty(3).copy_(there)
    assert len(waits.found) == 7
    assert "copy cpu -> cuda (3,) at" in waits.found[4]


def test_devices_must_not_be_mixed(monkeypatch: pytest.MonkeyPatch):
    with fake_gpu(monkeypatch), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=GPU) + torch.zeros(3)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_of_several_runs_is_read_once(processes: int, monkeypatch: pytest.MonkeyPatch):
    reads = []

    def read(figures: torch.Tensor) -> list[list[float]]:
        reads.append(figures.device)
        return [[4.0 * row + column for column in range(figures.shape[1])] for row in range(2)]

    accelerator = SimpleNamespace(num_processes=processes, reduce=lambda figures, _: figures)
    with fake_gpu(monkeypatch):
        zero = torch.zeros((), device=GPU)
        launched = [Launched(zero, zero, 0.0, False, False), Launched(zero, zero, 0.0, True, False)]
        with Waits() as waits, monkeypatch.context() as patch:
            patch.setattr(FakeTensor, "tolist", read)
            steps = read_steps(accelerator, launched)
    assert not waits.found
    assert reads == [GPU]
    if processes == 1:
        assert steps == [Step(0, 1, 0.0, False, False), Step(4, 5, 0.0, True, False)]
    else:
        assert steps == [Step(0, 1, 0.0, True, True), Step(4, 5, 0.0, True, True)]


def test_scores_are_waited_for_when_the_next_batch_is_on_its_way(monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []

    class Event:
        """CUDA's, as far as it is used."""

        def record(self, stream: object) -> None:
            self.number = len([event for event in events if event.startswith("launched")]) - 1

        def synchronize(self) -> None:
            events.append(f"waited for {self.number}")

    def edges() -> Iterator[torch.Tensor]:
        for number in range(3):
            events.append(f"launched {number}")
            yield torch.zeros(2, 5, device=GPU).T

    with fake_gpu(monkeypatch):
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *sizes, pin_memory=False, **how: empty(*sizes, **how))
        with Waits() as waits:
            arrived = list(one_late(edges()))
    assert not waits.found
    assert [(each.device.type, each.shape) for each in arrived] == [("cpu", (5, 2))] * 3
    order = ["launched 0", "launched 1", "waited for 0", "launched 2", "waited for 1", "waited for 2"]
    assert events == order
