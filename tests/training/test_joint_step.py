"""One optimiser step for several runs: bit for bit each run's own, by the launches of about one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from launches import Launches

from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.data.catalogue import DATASETS
from msekit.model.labels import LabelSpace
from msekit.model.make_adapter import make_adapter
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout
from msekit.settings.config import OptimConfig
from msekit.settings.resolve import resolve
from msekit.training.engine import PlainEngine
from msekit.training.joint_step import JointStep

ALONE = SimpleNamespace(num_processes=1, prepare=lambda model: model)
SPEC = DATASETS["synthetic-erc"]
GIVEN = {"backbone": "tiny-llama", "dataset": SPEC.name, "output": "none", "recipe": "best"}


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """One in fp16 has its losses scaled."""
    return load_backbone("tiny-llama", dtype=request.param, device="cpu")


def engines_of(backbone: Backbone, seeds: int, **optim: Any) -> list[PlainEngine]:
    """Of plug-ins with an opinion, which goes on at a share of the rate."""
    layout = PromptLayout(backbone.encode, backbone.bos, SPEC.task_prompt, "paper")
    labels = LabelSpace(SPEC, backbone.encode, backbone.end)
    settings = resolve(GIVEN, task="erc", overrides=[]).adapter
    adapters = [make_adapter(settings, 64, 6, 4, answers=SPEC, text_scale=0.1, seed=seed) for seed in range(seeds)]
    config = OptimConfig(opinion_samples=100, **optim)
    return [PlainEngine(MSEModel(backbone, adapter, layout, labels), ALONE, config) for adapter in adapters]


def give_gradients(engines: list[PlainEngine], step: int, broken: tuple[int, ...] = (), unreached: int = -1) -> None:
    for number, engine in enumerate(engines):
        generator = torch.Generator().manual_seed(100 * step + number)
        scale = 1.0 if engine.loss_scale is None else float(engine.loss_scale.scale)
        for parameter in engine.adapter.parameters():
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
        first = next(engine.adapter.parameters())
        if number in broken:
            first.grad = torch.full_like(first, torch.inf)
        if number == unreached:
            first.grad = None


def state_of(engine: PlainEngine) -> dict[str, torch.Tensor]:
    return dict(engine.adapter.named_parameters()) | engine.moments()


def stepped(joint: JointStep, engines: list[PlainEngine], rates: list[float]) -> list[float]:
    norms = [float(norm) for norm in joint.launch(engines, rates)]
    joint.settle(engines, norms)
    return norms


@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_every_run_steps_as_it_does_alone(backbone: Backbone, clip_norm: float | None):
    together, alone = (engines_of(backbone, 4, clip_norm=clip_norm) for _ in range(2))
    joint = JointStep(together)
    same, own = [1e-2] * 4, [1e-2, 1e-2, 3e-3, 1e-2]
    steps: list[tuple[list[float], tuple[int, ...], int]] = [
        (same, (), -1),
        (own, (), -1),  # a rate of its own
        (same, (1,), -1),  # one is not finite: the others go on
        (same, (), 2),  # a parameter that no gradient reaches
        (same, (0, 1, 2, 3), -1),
        (own, (0, 2), -1),
        (same, (), -1),
    ]
    for step, (rates, broken, unreached) in enumerate(steps):
        for engines in (together, alone):
            give_gradients(engines, step, broken, unreached)
        theirs = [float(engine.step(rate)) for engine, rate in zip(alone, rates, strict=True)]
        norms = stepped(joint, together, rates)
        assert [norm for norm in norms if norm < torch.inf] == [norm for norm in theirs if norm < torch.inf]
        assert [norm < torch.inf for norm in norms] == [number not in broken for number in range(4)]
        for mine, other in zip(together, alone, strict=True):
            ours, exact = state_of(mine), state_of(other)
            assert ours.keys() == exact.keys()
            assert all(torch.equal(ours[name], exact[name]) for name in ours)
            assert all(parameter.grad is None for parameter in mine.adapter.parameters())


def test_a_run_that_ended_stands_still_and_restored_moments_are_gone_on_from(backbone: Backbone):
    together, alone = engines_of(backbone, 3), engines_of(backbone, 3)
    for engines in (together, alone):
        give_gradients(engines, 0)
        _ = [engine.step(1e-2) for engine in engines]
    saved = {name: tensor.clone() for name, tensor in state_of(together[1]).items()}
    adapter = {name: saved[name] for name, _ in together[1].adapter.named_parameters()}
    adapter |= dict(together[1].adapter.named_buffers())
    together[1].restore(together[1].adapter.state_dict() | adapter, together[1].moments())
    joint = JointStep(together)
    for engines in (together, alone):
        give_gradients(engines, 1)
    stepped(joint, [together[0], together[2]], [1e-2, 1e-2])
    _ = [alone[number].step(1e-2) for number in (0, 2)]
    for number in (0, 2):
        ours, exact = state_of(together[number]), state_of(alone[number])
        assert all(torch.equal(ours[name], exact[name]) for name in exact)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in state_of(together[1]).items())


def test_it_takes_the_launches_of_about_one_run():
    backbone, counts = load_backbone("tiny-llama", dtype="fp32", device="cpu"), []
    for seeds in (1, 5):
        engines = engines_of(backbone, seeds)
        joint = JointStep(engines)
        for step in range(2):  # the first makes the moments
            give_gradients(engines, step)
            with Launches() as launches:
                norms = joint.launch(engines, [1e-3] * seeds)
            joint.settle(engines, [float(norm) for norm in norms])
        counts.append(launches.names)
    alone, five = counts
    assert alone["_fused_adamw_"] == five["_fused_adamw_"] == 2, "once for each share of the rate"
    assert five["_foreach_norm"] == five["linalg_vector_norm"] == 1
    assert alone.total() == 20, "16 with one rate for all parameters"
    assert five.total() == alone.total() + 4 + 1, "the clipping, and whether any is not finite"
