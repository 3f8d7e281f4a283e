"""The published procedure that speed is compared with: it does the same mathematics, the slow way."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.agreement import distance, kit_outcome, procedure_outcome
from benchmarks.speed.measure import Side, Work, alternate, body_and_head, table, useful_flop
from benchmarks.speed.procedure import Procedure
from benchmarks.speed.train_speed import in_layout, kit_side, prepare, work_of


@pytest.fixture(scope="module", params=["synthetic-erc", "synthetic-msa"])
def prepared(request, own_cache):
    return prepare("tiny-llama", request.param, 8, ["optim.lr=1e-2"])


def test_its_loss_and_gradients_are_the_kits(prepared):
    _, parts = prepared
    first = list(range(8))
    loss, gradient = map(distance, kit_outcome(parts, first), procedure_outcome(parts, first))
    assert max(loss, gradient) <= 1e-5
    procedure, indices = Procedure(parts), list(range(8))
    procedure.loss(procedure.batch("train", indices)).backward()
    (parts.model(parts.collators["train"](indices)) / 8).backward()
    pairs = list(zip(procedure.adapter.parameters(), parts.model.adapter.parameters(), strict=True))
    scale = max(float(ours.grad.abs().max()) for _, ours in pairs)
    assert all((theirs.grad - ours.grad).abs().max() <= 1e-5 * max(scale, 1) for theirs, ours in pairs)
    parts.model.adapter.zero_grad()


def test_it_learns_and_answers(prepared):
    _, parts = prepared
    procedure = Procedure(parts, lr=1e-2)
    losses = [procedure.step(list(range(8))) for _ in range(15)]
    assert losses[-1] < losses[0]
    answers = procedure.answer("test", list(range(8)))
    assert len(answers) == 8
    assert procedure.tokens_read() > max(map(len, parts.collators["train"].text_ids))


def test_the_work_counted_is_what_the_mask_shows(prepared):
    config, parts = prepared
    for layout in ("paper", "prompt-first"):
        _, theirs = in_layout(config, parts, layout)
        indices = list(range(8))
        sequence = theirs.model.for_training(theirs.collators["train"](indices)).sequence
        work = work_of(theirs, [indices], training=True)
        body, head = body_and_head(theirs.backbone.model)
        read = theirs.model.prefix.get_seq_length() * 8
        assert work.useful_tokens == int(sequence.mask.sum()) + read
        targets = sum(len(theirs.labels.tokens[int(theirs.collators["train"].labels[i])]) for i in indices)
        assert work.flop == useful_flop(body, work.useful_tokens - read, head, targets, training=True)
    assert body + head <= sum(p.numel() for p in theirs.backbone.model.parameters())


def test_a_block_of_the_kit_is_a_number_of_steps(prepared):
    config, parts = prepared
    side = kit_side(*in_layout(config, parts, "prompt-first"), steps=2)
    alternate([side, Side("nothing", lambda: Work(1, 1, 1.0))], rounds=2, device=torch.device("cpu"))
    assert len(side.seconds) == 2
    assert side.work[0].samples == 16
    assert side.peak_bytes > 0
    assert "| nothing |" in table("x", [side, side, Side("nothing", side.run, side.seconds, side.work)], 1e9)
