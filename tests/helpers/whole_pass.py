"""A tiny backbone's whole pass: an adapter and a batch in front of it, and all that comes out."""

from __future__ import annotations

import torch
from rounding import furthest, rounding
from torch import Tensor, nn

from msekit.adapters.mse import MSEAdapter
from msekit.backbones.backbone import Backbone
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DatasetSpec
from msekit.model.labels import LabelSpace
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout

TEXTS = ("ok", "a rather longer text", "")


def model_of(
    backbone: Backbone, spec: DatasetSpec, prompt_first: bool = False, texts: tuple[str, ...] = TEXTS
) -> tuple[MSEModel, Batch]:
    torch.manual_seed(0)
    adapter = MSEAdapter(backbone.text_dim, 6, 5, 8, 4, 3, conditioning="unit")
    order = "prompt-first" if prompt_first else "paper"
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt, order)  # type: ignore[arg-type]
    ids = [torch.tensor(backbone.encode(text), dtype=torch.long) for text in texts]
    size = len(texts)
    batch = Batch(
        index=torch.arange(size),
        text_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True),
        text_lengths=torch.tensor([len(row) for row in ids]),
        audio=torch.randn(size, 7, 6),
        audio_lengths=torch.tensor([7, 3, 1]),
        vision=torch.randn(size, 4, 5),
        vision_lengths=torch.tensor([1, 4, 0]),
        label=torch.tensor([3, 1, 2]),
        weight=torch.ones(size),
    )
    return MSEModel(backbone, adapter, layout, LabelSpace(spec, backbone.encode, backbone.end)), batch


def outcome(model: MSEModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, logits at the label's columns, the adapter's gradients in one row, edges of the label trie."""
    model.adapter.zero_grad()
    loss = model(batch)
    loss.backward()
    with torch.no_grad():
        logits = model.logits(model.for_training(batch).sequence)
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.adapter.parameters()])
    return loss.detach(), logits, gradients, model.score(batch)


def assert_alike(model: MSEModel, batch: Batch, ways: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Two choices of shorter ways are only rounding apart."""
    mine, plain = outcome_by(ways, model, batch), outcome_by(others, model, batch)
    bounds = rounding(
        model.backbone, lambda other: outcome(MSEModel(other, model.adapter, model.layout, model.labels), batch)
    )
    assert all(value.abs().max() > 0 for value in plain)
    assert all(apart <= bound for apart, bound in zip(furthest(mine, plain), bounds, strict=True))


def outcome_by(ways: tuple[str, ...], model: MSEModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same with these shorter ways alone."""
    with model.backbone.passes.limited(ways):
        return outcome(model, batch)
