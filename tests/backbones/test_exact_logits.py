"""In 16 bit the tokens that are scored have logits as exact as the head's input, and their gradient."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from whole_pass import model_of, outcome

from msekit.backbones.backbone import ExactLogits
from msekit.backbones.load import load_backbone
from msekit.backbones.passes import compiled
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.model.decoding import write_answers
from msekit.model.mse_model import MSEModel

TOKENS = torch.tensor([3, 0, 40])


def head_and_input(dtype: torch.dtype, bias: bool) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(64, 100, bias=bias).requires_grad_(False)
    head.weight.mul_(20)
    return head.to(dtype), torch.randn(2, 3, 64).to(dtype).requires_grad_()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_tokens_logits_are_fp32s_and_the_others_as_they_were(dtype: torch.dtype, bias: bool):
    head, hidden = head_and_input(dtype, bias)
    exact = nn.functional.linear(hidden.float(), head.weight.float(), head.bias.float() if bias else None)
    before = head(hidden)
    watched = ExactLogits(head)
    with watched.of(TOKENS):
        mine = head(hidden)
    assert mine.dtype == torch.float32
    assert torch.allclose(mine[..., TOKENS], exact[..., TOKENS], rtol=1e-6, atol=1e-5)
    others = [token for token in range(100) if token not in TOKENS]
    assert torch.equal(mine[..., others], before[..., others].float())
    assert torch.equal(head(hidden), before), "outside it is the head's own"


def test_the_gradient_is_that_of_the_whole_product():
    head, hidden = head_and_input(torch.bfloat16, bias=False)
    weights = torch.randn(2, 3, 100)
    (exact,) = torch.autograd.grad((nn.functional.linear(hidden.float(), head.weight.float()) * weights).sum(), hidden)
    with ExactLogits(head).of(TOKENS):
        (mine,) = torch.autograd.grad((head(hidden) * weights).sum(), hidden)
    assert (mine - exact).abs().max() <= 2**-7 * exact.abs().max()


def test_fp32_is_left_alone():
    head, hidden = head_and_input(torch.float32, bias=False)
    watched, before = ExactLogits(head), head(hidden)
    with watched.of(TOKENS):
        assert torch.equal(head(hidden), before)


def alike_labels(task: str) -> tuple[MSEModel, Batch]:
    """A model whose LLM, in bf16, finds all the labels' tokens alike, and large, as real ones do."""
    backbone = load_backbone("tiny-llama", dtype="bf16", device="cpu")
    model, batch = model_of(backbone, DATASETS[task])
    weight = backbone.model.get_output_embeddings().weight
    with torch.no_grad():
        weight[model.label_tokens] = 8 * weight[model.label_tokens[0]] + 0.2 * weight[model.label_tokens]
    return model, batch


def ties(model: MSEModel, edges_BE: Tensor) -> int:
    parent_E = torch.from_numpy(model.labels.trie.parent)
    leaving = [row[parent_E == node] for row in edges_BE for node in parent_E.unique()]
    return sum(len(scores) - len(scores.unique()) for scores in leaving)


@pytest.mark.parametrize("task", ["synthetic-erc", "synthetic-msa"])
def test_no_two_labels_have_the_same_score(own_cache, task: str):
    model, batch = alike_labels(task)
    scores = model.score(batch)
    head, inputs = model.backbone.model.get_output_embeddings(), []
    with torch.no_grad(), head.register_forward_hook(lambda _, args, out: inputs.append(args[0])):
        model.label_tokens = torch.tensor([], dtype=torch.long)
        rounded = model.score(batch)
        in_fp32 = model.edges(nn.functional.linear(inputs[0].float(), head.weight.float())).joint
    assert ties(model, scores) == 0
    assert ties(model, rounded) > 0, "the labels are too far apart to tie"
    assert (scores - in_fp32).abs().max() < (rounded - in_fp32).abs().max() / 2


@pytest.mark.parametrize("task", ["synthetic-erc", "synthetic-msa"])
def test_the_answer_that_is_written_is_the_one_that_scores_best(own_cache, task: str):
    model, batch = alike_labels(task)
    best = model.labels.predict(model.score(batch).numpy(), "greedy")
    written = write_answers(model, batch)
    assert [model.labels.names.index(name) for name in written] == model.labels.indices(best).tolist()


@pytest.mark.slow
def test_a_compiled_pass_has_the_same(own_cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    plain, program = (load_backbone("tiny-llama", dtype="bf16", device="cpu", compiled=way) for way in (False, True))
    (model, batch), (other, _) = (model_of(backbone, DATASETS["synthetic-erc"]) for backbone in (plain, program))
    for mine, theirs in zip(outcome(other, batch), outcome(model, batch), strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine - theirs).abs().max() <= 2**-5 * theirs.abs().max()
