"""The opinion trained alone, before the schedule: epochs that need no pass through the LLM.

What the mixture knows of the labels is learned from cached hidden states and features, in seconds. The joint training
then begins where the opinion already is, and spends its passes through the LLM on what the LLM can add.

Every process of a distributed run does the same on the same samples, so nothing has to be exchanged.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from msekit.adapters.interface import OpinionatedAdapter
from msekit.adapters.sample_dropout import draws
from msekit.data.batches.batch import Collator, Noise, evaluation_batches, global_batches
from msekit.evaluation.metrics import higher_is_better
from msekit.evaluation.scoring import Scores
from msekit.evaluation.units import show
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.training.build import Parts, training_subset
from msekit.training.optim import learning_rate

EPOCHS_APART = 1_000_000
"""Added to the number of these epochs, so that their order, noise and dropout are not those of the schedule's."""
SCORED = 64
"""Samples whose opinions are asked for at a time."""


def train_opinion(config: RunConfig, parts: Parts, reporter: Reporter) -> None:
    """Train the opinion alone, if there is one; the adapter ends as its best epoch by the validation split."""
    adapter, optim, spec = parts.model.adapter, config.optim, parts.spec
    if not isinstance(adapter, OpinionatedAdapter) or not optim.opinion_epochs:
        return
    assert parts.model.objective is not None, "an adapter with an opinion has an objective"
    parameters = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=optim.opinion_lr, weight_decay=optim.weight_decay)
    subset = training_subset(parts, config)
    tokens, frames = (lengths[subset] for lengths in parts.collators["train"].lengths())
    device, sign = parts.backbone.device, 1 if higher_is_better(spec.key_metric) else -1
    best, best_value, step = {}, -float("inf"), 0
    total = optim.opinion_epochs * -(-len(subset) // optim.batch_size)
    with reporter.bar("the opinion alone", optim.opinion_epochs) as advance:
        for epoch in range(optim.opinion_epochs):
            adapter.train()
            collator = of_epoch(parts.collators["train"], config, epoch + EPOCHS_APART)
            for batch in global_batches(tokens, frames, optim.batch_size, config.seed, epoch + EPOCHS_APART):
                rows = collator(subset[batch].tolist()).to(device)
                edges_BE = parts.model.opinion(rows)
                loss = (parts.model.objective.of(edges_BE, rows.label) * rows.weight).mean()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, optim.clip_norm or float("inf"))
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, total, optim.warmup, optim.opinion_lr)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
            value = opinions(parts, "valid").metrics(spec, config.evaluation.estimate)[spec.key_metric]
            if value is not None and sign * value > best_value:
                best, best_value = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}, sign * value
            advance(1, f"{spec.key_metric} {show(spec.key_metric, value)}")
    if best:
        adapter.load_state_dict(best)
        reporter.note(f"the opinion alone: validation {spec.key_metric} {show(spec.key_metric, sign * best_value)}")


def of_epoch(collator: Collator, config: RunConfig, epoch: int) -> Collator:
    """The train split's collator with an epoch's own noise and dropout."""
    noise = Noise(config.noise, config.seed, epoch) if config.noise else None
    return replace(collator, draws=partial(draws, config.seed, epoch), noise=noise)


@torch.no_grad()
def opinions(parts: Parts, split: str) -> Scores:
    """The opinion alone on a split."""
    parts.model.adapter.eval()
    collator = parts.collators[split]
    rows: dict[int, np.ndarray] = {}
    for batch in evaluation_batches(*collator.lengths(), SCORED, 0, 1):
        edges_BE = parts.model.opinion(collator(batch).to(parts.backbone.device))
        rows.update(zip(batch, edges_BE.cpu().numpy(), strict=True))
    edges = [rows[position] for position in range(len(collator.split))]
    return Scores(np.stack(edges), collator.split.labels, parts.labels)
