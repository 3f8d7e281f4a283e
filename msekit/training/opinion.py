"""The opinion trained alone, before the schedule: epochs that need no pass through the LLM.

What the mixture knows of the labels is learned from cached hidden states and features, in seconds to minutes. The
joint training then begins where the opinion already is, and spends its passes through the LLM on what the LLM can add.

Every process of a distributed run does the same on the same samples; where its numbers are not those of the first
process, the joint training begins with the first one's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from msekit.adapters.interface import OpinionatedAdapter
from msekit.adapters.sample_dropout import draws
from msekit.data.batches.ahead import ahead
from msekit.data.batches.batch import Batch, Collator, ModalityDropout, Noise, evaluation_batches, global_batches
from msekit.errors import UnfinishedRunError
from msekit.evaluation.scoring import Scores
from msekit.evaluation.units import show
from msekit.gpu import one_late
from msekit.model.mse_model import MSEModel
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.training.build import Parts, training_subset
from msekit.training.moving_average import Average
from msekit.training.optim import learning_rate

EPOCHS_APART = 1_000_000
"""Added to the number of these epochs, so that their order, noise and dropout are not those of the schedule's."""
SCORED = 64
"""Samples whose opinions are asked for at a time."""
BATCH, WARMUP, AVERAGED = 32, 0.05, 0.995
"""Samples of a step, share of the steps over which the rate rises, and how much the average of the weights keeps."""
FEWEST, MOST = 8, 60
"""Epochs, whatever the size of the train split."""


def epochs_alone(config: RunConfig, samples: int) -> int:
    """Epochs in which the opinion trains alone on so many samples."""
    wanted = config.optim.opinion_samples
    return min(max(round(wanted / samples), FEWEST), MOST) if wanted else 0


def train_opinion(config: RunConfig, parts: Parts, reporter: Reporter, heed: Callable[[], None]) -> float:
    """Train the opinion alone, if there is one; it ends as the average of its weights over the last steps.

    Args:
        config: The run.
        parts: What it works with.
        reporter: Where progress goes.
        heed: Called after every epoch; it raises where training is to stop.

    Returns:
        Seconds that it took.

    Raises:
        UnfinishedRunError: The loss is not finite.
    """
    started = time.perf_counter()
    adapter, optim, model = parts.model.adapter, config.optim, parts.model
    subset = training_subset(parts, config)
    epochs = epochs_alone(config, len(subset))
    if not isinstance(adapter, OpinionatedAdapter) or not epochs:
        return 0.0
    parameters = list(adapter.opinion_parameters())
    optimizer = torch.optim.AdamW(parameters, lr=optim.opinion_lr, weight_decay=optim.opinion_decay, fused=True)
    average = Average(adapter, AVERAGED)
    tokens, frames = (lengths[subset] for lengths in parts.collators["train"].lengths())
    step, steps, device = 0, epochs * -(-len(subset) // BATCH), parts.backbone.device
    with reporter.bar(f"seed {config.seed}, the opinion alone, epochs", epochs) as advance:
        for epoch in range(EPOCHS_APART, EPOCHS_APART + epochs):
            adapter.train()
            order = global_batches(tokens, frames, BATCH, config.seed, epoch)
            collator = of_epoch(parts.collators["train"], config, epoch)
            total = torch.zeros((), dtype=torch.float64, device=device)
            for batch in sent_ahead(collator, [subset[batch].tolist() for batch in order], device):
                loss = model.opinion_loss(batch) / len(batch.label)
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, steps, WARMUP, optim.opinion_lr)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                average.update(step)
                total += loss.detach().double() * len(batch.label)
            loss_sum = float(total)  # the one place where an epoch waits for the device
            if not math.isfinite(loss_sum):
                raise UnfinishedRunError(
                    f"the opinion's loss became {loss_sum} in epoch {epoch - EPOCHS_APART + 1} of its training alone",
                    where=config.output,
                    fix="Lower optim.opinion_lr; `msekit data info` shows unusual features.",
                )
            advance(1, f"loss {loss_sum / len(subset):.3f}")
            heed()
    average.adopt()
    metrics, key = opinions(parts, "valid").metrics(parts.spec, config.evaluation.estimate), parts.spec.key_metric
    reporter.note(
        f"seed {config.seed}  the opinion alone after {epochs} epochs: validation {key} {show(key, metrics[key])}"
    )
    return time.perf_counter() - started


def sent_ahead(collator: Collator, order: list[list[int]], device: torch.device) -> Iterator[Batch]:
    """Batches of samples at these positions, made in advance and on their way to the device."""
    with closing(ahead(lambda positions: collator(positions).pinned_for(device), order)) as made:
        for batch in made:
            yield batch.to(device)


def of_epoch(collator: Collator, config: RunConfig, epoch: int) -> Collator:
    """The train split's collator with an epoch's own noise, dropout and withheld modalities."""
    chance = config.data.modality_dropout
    return replace(
        collator,
        draws=partial(draws, config.seed, epoch),
        noise=Noise(config.noise, config.seed, epoch) if config.noise else None,
        dropout=ModalityDropout(chance, config.seed, epoch) if chance else None,
    )


@torch.no_grad()
def opinions(parts: Parts, split: str) -> Scores:
    """The opinion alone on a split."""
    parts.model.adapter.eval()
    collator = parts.collators[split]
    rows: dict[int, np.ndarray] = {}
    order = evaluation_batches(*collator.lengths(), SCORED, 0, 1)
    edges = one_late(map(parts.model.opinion, sent_ahead(collator, order, parts.backbone.device)))
    for batch, edges_BE in zip(order, edges, strict=True):
        rows.update(zip(batch, edges_BE.numpy(), strict=True))
    edges_NE = np.stack([rows[position] for position in range(len(collator.split))])
    return Scores(edges_NE, collator.split.labels, parts.model.answers)


def fit_llm_weight(model: MSEModel, scores: Scores) -> Scores:
    """Set how far the LLM is trusted beside the opinion, by the scores of the validation split; those scores by it."""
    if scores.llm is None or scores.opinion is None or model.product is None:
        return scores
    assert isinstance(model.adapter, OpinionatedAdapter)
    device = model.adapter.llm_weight.device
    llm_NE, opinion_NE = (torch.from_numpy(edges).to(device) for edges in (scores.llm, scores.opinion))
    labels_N = torch.from_numpy(model.answers.indices(scores.truths)).to(device)
    weight = model.product.fitted_weight(llm_NE, opinion_NE, labels_N)
    model.adapter.llm_weight.copy_(torch.as_tensor(weight))
    return replace(scores, edges=model.product(llm_NE, opinion_NE, weight).cpu().numpy())
