"""The paper's (backbone x data set) cells on a 24 GB card: does it fit, how much, how fast, and did the plan know?

A cell trains on full batches of the longest samples at the published batch size. What does not fit is computed in
halves, quarters, … of the batch, the batch itself kept, and the row says so.
"""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.direct import backbone_on
from benchmarks.gpu.machine import GIB, Machine, said
from msekit.backbones.backbone import Backbone
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.holding import MULTIPLE
from msekit.backbones.shape import shape_of
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.model.labels import LabelSpace
from msekit.model.make_adapter import make_adapter
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout
from msekit.paper import PAPER_DATASETS
from msekit.planning.memory import memory_plan
from msekit.planning.plan_run import Plan, holding_of, plan_run
from msekit.settings.config import RunConfig
from msekit.settings.recipes import published_settings
from msekit.settings.resolve import resolve
from msekit.training.optim import optimizer_for

CARD_GB = 24
PLAN_WITHIN = 0.15
WARM_UP, MEASURED = 1, 5


def run(machine: Machine, backbone: str, quantization: str) -> list[dict[str, Any]]:
    """The four data sets on one backbone at one precision; a row for each."""
    machine.cap(CARD_GB)
    raw, folder = machine.shape(backbone), machine.work / f"{backbone}-direct"
    kind = "none" if quantization == "bf16" else quantization
    rows: list[dict[str, Any]] = []
    for checkpointing in (False, True):
        loaded = backbone_on(raw, folder, torch.device(machine.device), kind, checkpointing)
        todo = [name for name in PAPER_DATASETS if not any(row["dataset"] == name and row["fits"] for row in rows)]
        for dataset in todo:
            rows = [row for row in rows if row["dataset"] != dataset]
            config = cell_config(machine, str(folder), backbone, dataset, kind, checkpointing)
            rows.append(measured(machine, loaded, config) | {"backbone": backbone, "precision": quantization})
        del loaded
        gc.collect()
        if all(row["fits"] for row in rows):
            break
    return sorted(rows, key=lambda row: PAPER_DATASETS.index(row["dataset"]))


def measured(machine: Machine, backbone: Backbone, config: RunConfig) -> dict[str, Any]:
    """One cell's row; of one that fails, why, and the others are measured all the same."""
    try:
        return measure(machine, backbone, config)
    except Exception as error:  # whatever a card or a kernel that nobody has tried yet raises
        machine.give_up_if_broken(error)
        return {"dataset": config.dataset, "fits": False, "failed": said(error)}


def cell_config(
    machine: Machine, folder: str, backbone: str, dataset: str, quantization: str, checkpointing: bool
) -> RunConfig:
    """A published pair's settings, on a checkpoint of its shape."""
    settings = published_settings(backbone, dataset)
    if machine.tiny:
        settings["data"]["max_frames"] = 8
    fields = settings | {
        "backbone": folder,
        "dataset": dataset,
        "recipe": "paper",
        "output": "unused",
        "profile": "rtx4090" if machine.cuda else "cpu",
        "model": {"quantization": quantization, "dtype": "bf16", "checkpointing": "on" if checkpointing else "off"},
    }
    return resolve(fields, task=DATASETS[dataset].task)


def measure(machine: Machine, backbone: Backbone, config: RunConfig) -> dict[str, Any]:
    """One cell: correctness, then the largest part of the batch that fits, its peak and its speed."""
    plan = plan_run(config)
    model = cell_model(backbone, config, plan)
    size = config.optim.batch_size
    row: dict[str, Any] = {"dataset": config.dataset, "batch": size, "recomputed": config.model.checkpointing == "on"}
    parts = 1
    while parts <= size:
        try:
            return row | {"parts": parts, "fits": True} | train(machine, model, config, parts)
        except torch.OutOfMemoryError:
            parts *= 2
        model.zero_grad(set_to_none=True)
        gc.collect()
    return row | {"parts": None, "fits": False}


def cell_model(backbone: Backbone, config: RunConfig, plan: Plan) -> MSEModel:
    """The published adapter in front of the backbone."""
    spec = DATASETS[config.dataset]
    labels = LabelSpace(spec, backbone.encode, backbone.end)
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt)
    widths = (width for _, width, _ in plan.work.encoders)
    adapter = make_adapter(config.adapter, backbone.text_dim, *widths, seed=config.seed)
    return MSEModel(backbone, adapter, layout, labels).to(backbone.device)


def train(machine: Machine, model: MSEModel, config: RunConfig, parts: int) -> dict[str, Any]:
    """Steps on a batch in so many parts; the figures of a row."""
    size = config.optim.batch_size
    optimizer = optimizer_for(model.adapter, config.optim)
    micro = random_batch(model, config, -(-size // parts))
    before = fingerprint_model(model.backbone.model)
    machine.start_peak()

    def step() -> None:
        for _ in range(parts):
            (model(micro) / size).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    loss = check(model, micro)
    step()
    model.score(micro)
    peak = machine.peak()
    steps = 1 if machine.tiny else MEASURED
    for _ in range(0 if machine.tiny else WARM_UP):
        step()

    def block() -> None:
        for _ in range(steps):
            step()

    seconds = machine.seconds(block)
    assert fingerprint_model(model.backbone.model) == before, "the frozen backbone changed"
    figures = {"samples_per_s": round(parts * len(micro.index) * steps / seconds, 1)}
    return figures | {"loss": round(loss, 4)} | against_plan(machine, model, config, micro, peak)


def against_plan(
    machine: Machine, model: MSEModel, config: RunConfig, micro: Batch, peak: int | None
) -> dict[str, Any]:
    """The measured peak beside what the plan foresees for the very sequences that were run.

    The random checkpoint's made-up tokenizer writes the prompt in another number of tokens than the published one.
    """
    plan = plan_run(config)
    prefix = 0 if model.prefix is None else len(model.layout.opening)
    tokens, samples = model.laid_out(micro).sequence.embeddings.shape[1], len(micro.index)
    if machine.cuda:  # as `Backbone.logits` pads them
        tokens += -tokens % MULTIPLE
    work = replace(plan.work, samples=samples, scored_samples=samples, tokens=tokens - prefix, prefix=prefix)
    memory = memory_plan(shape_of(config.backbone), work, holding_of(config, plan.profile))
    foreseen = memory.total(config.model.checkpointing == "on") - memory.reserve
    return {
        "tokens": tokens,
        "planned_gb": round(foreseen / GIB, 2),
        "peak_gb": None if peak is None else round(peak / GIB, 2),
        "plan_holds": None if peak is None else abs(foreseen / peak - 1) <= PLAN_WITHIN,
    }


def check(model: MSEModel, micro: Batch) -> float:
    """Correct before quick: a finite loss, and a gradient in every part of the adapter."""
    loss = model(micro)
    figure = float(loss.detach()) / len(micro.index)
    assert math.isfinite(figure), figure
    loss.backward()
    for name, parameter in model.adapter.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert parameter.grad.abs().sum() > 0 or "lstm.bias" in name, name
    model.zero_grad(set_to_none=True)
    return figure


def random_batch(model: MSEModel, config: RunConfig, size: int) -> Batch:
    """As many of the longest samples that a data set's published files may hold."""
    plan = plan_run(config)
    generator = torch.Generator().manual_seed(0)
    length = int(config.data.text_limit or 0)
    vocabulary = model.backbone.model.get_input_embeddings().weight.shape[0]
    (audio_frames, audio_width, _), (vision_frames, vision_width, _) = plan.work.encoders
    return Batch(
        index=torch.arange(size),
        text_ids=torch.randint(100, min(vocabulary, 30000), (size, length), generator=generator),
        text_lengths=torch.full((size,), length),
        audio=torch.randn(size, audio_frames, audio_width, generator=generator),
        audio_lengths=torch.full((size,), audio_frames),
        vision=torch.randn(size, vision_frames, vision_width, generator=generator),
        vision_lengths=torch.full((size,), vision_frames),
        label=torch.arange(size) % len(model.labels),
        weight=torch.ones(size),
    ).to(model.backbone.device)
