"""Several targets in one pass: every question is scored, trained and judged as if it were asked alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from as_on_gpu import bound

from msekit.adapters.interface import OpinionatedAdapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.passes.one_by_one import by_branch
from msekit.backbones.passes.plain import plain_pass
from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.data.targets import Target
from msekit.errors import MsekitError
from msekit.evaluation.records import truths_of
from msekit.evaluation.scoring import Scores
from msekit.model.answers import Answers, cues_of, records_of
from msekit.model.edges import Edges
from msekit.model.labels import LabelSpace
from msekit.model.losses import Objective, Objectives
from msekit.model.mse_model import MSEModel
from msekit.model.product import Product, Products
from msekit.model.prompt import PromptLayout
from msekit.reporter import Reporter
from msekit.settings.config import LossConfig
from msekit.settings.resolve import resolve
from msekit.training.build import Parts, build

TARGETS = DATASETS["synthetic-targets"]
NOTHING = np.nan


def characters(text: str) -> list[int]:
    return [ord(character) for character in text]


@pytest.fixture(scope="module", params=["paper", "prompt-first"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    asked = {"backbone": "tiny-llama", "dataset": TARGETS.name, "output": tmp_path_factory.mktemp("none")}
    more = {"layout": request.param, "recipe": "best", "data": {"limit_train": 32}, "model": {"dtype": "fp32"}}
    return build(resolve(asked | more, task="targets"), Reporter(quiet=True), splits=("train",))


def alone(parts: Parts, number: int) -> MSEModel:
    """A model of one question alone, whose words stand in the content as a single target's do."""
    model, backbone, one = parts.model, parts.backbone, parts.model.answers.asked[number]
    space = LabelSpace(one.question.spec, backbone.encode, backbone.end)
    layout = PromptLayout(backbone.encode, backbone.bos, TARGETS.task_prompt, model.layout.order, model.layout.cues)
    layout.closing = [*layout.closing, *one.cue]
    return MSEModel(backbone, model.adapter, layout, space)


@torch.no_grad()
def test_every_question_is_scored_as_if_it_were_asked_alone(parts: Parts):
    parts.model.adapter.eval()
    batch = parts.collators["train"](list(range(6)))
    sequence, _ = parts.model.for_scoring(batch)
    together_BE = parts.model.edges(parts.model.logits(sequence)).joint
    for number, one in enumerate(parts.model.answers.asked):
        model = alone(parts, number)
        laid, _ = model.for_scoring(batch)
        alone_BE = model.edges(model.logits(laid)).joint
        assert torch.allclose(together_BE[:, one.edges], alone_BE, atol=bound(1e-4, 0.1)), one.name


@torch.no_grad()
def test_llms_that_read_no_tree_read_the_branches_one_by_one(tiny: Backbone):
    """Also where a question's words begin with another's, so that words stand behind nodes that are scored."""
    targets = {"a": Target(range=(0, 1), prompt="How?="), "b": Target(range=(0, 1), prompt="How?=0.=")}
    spec = DatasetSpec(name="own", layout="folder", targets=targets)
    answers = Answers.of(spec, tiny.encode, tiny.end)
    assert answers.nodes.scored < len(answers.nodes.token)
    layout = PromptLayout(tiny.encode, tiny.bos, spec.task_prompt, "paper", cues_of(spec, "paper"))
    text_BTd = tiny.embed(torch.tensor([tiny.encode("Well then."), tiny.encode("So, so, so")]))
    content = layout.content(tiny.constant, text_BTd[:, :0], text_BTd, torch.tensor([10, 6]))
    family = torch.from_numpy(answers.nodes.family)
    sequence, compute = layout.with_tree(*content, tiny.constant, answers.nodes, family), plain_pass(tiny.model)
    at_once, one_by_one = compute(sequence), by_branch(compute)(sequence)
    assert one_by_one.shape == (2, answers.nodes.scored, at_once.shape[-1])
    assert torch.allclose(at_once, one_by_one, atol=bound(1e-4, 0.1))


def test_a_single_target_is_the_list_of_one():
    for name in ("mosei", "meld"):
        answers = Answers.of(DATASETS[name], characters, 0)
        trie = LabelSpace(DATASETS[name], characters, 0).trie
        assert not answers.several
        assert answers.nodes.scored == len(trie.inner)
        assert answers.nodes.token == tuple(trie.token[trie.inner[1:] - 1])
        assert np.array_equal(answers.nodes.family, trie.family)
        assert np.array_equal(answers.edge_row, trie.edge_row)
        assert np.array_equal(answers.edge_token, trie.token)


def test_words_that_begin_alike_share_their_columns():
    answers = Answers.of(TARGETS, characters, 0)
    words = sum(len(one.cue) for one in answers.asked)
    inner = sum(len(one.space.trie.inner) - 1 for one in answers.asked)
    assert len(answers.nodes.token) < words + inner, "`signs, ` is there once"
    assert answers.nodes.scored == sum(len(one.space.trie.inner) for one in answers.asked)


def test_an_unanswered_question_adds_nothing_to_the_loss_and_the_weights_count():
    answers = Answers.of(TARGETS, characters, 0)
    heavy = TARGETS.targets["valence"].model_copy(update={"weight": 3.0})
    weighted = Answers.of(TARGETS.model_copy(update={"targets": TARGETS.targets | {"valence": heavy}}), characters, 0)
    size = answers.asked[-1].edges.stop
    edges = torch.log_softmax(torch.randn(4, size, generator=torch.Generator().manual_seed(0)), dim=1).requires_grad_()
    truths = np.array(
        [[2, 1, 0, 1, 0, 0.5], [NOTHING, 0, NOTHING, 1, 1, -1.0], [0, 0, 0, 0, 0, NOTHING], [NOTHING] * 6]
    )
    labels = answers.indices(truths)
    assert labels[3].tolist() == [-1] * 6
    config = LossConfig(balance="class-balanced", tau=0.5, expected=1.0)
    losses = Objectives(config, answers, labels, chr).of(edges, torch.from_numpy(labels))
    heavier = Objectives(config, weighted, labels, chr).of(edges, torch.from_numpy(labels))
    expected = torch.zeros(4)
    for number, one in enumerate(answers.asked):
        known = labels[:, number] >= 0
        own = LossConfig(expected=1.0) if one.space.task == "msa" else LossConfig(balance="class-balanced", tau=0.5)
        objective = Objective(own, one.space, labels[known, number], chr)
        part = objective.of(edges[known][:, one.edges], torch.from_numpy(labels[known, number]))
        expected[known] = expected[known] + part
        if one.name == "valence":
            assert torch.allclose((heavier - losses)[known], 2 * part)
    assert torch.allclose(losses, expected)
    losses[3].backward()
    assert edges.grad is not None
    assert not edges.grad.any(), "nothing is known of the last sample"


def test_losses_for_what_no_target_is_are_refused():
    ranges = TARGETS.model_copy(update={"targets": {"valence": TARGETS.targets["valence"]}})
    classes = TARGETS.model_copy(update={"targets": {"emotion": TARGETS.targets["emotion"]}})
    for spec, config in ((ranges, LossConfig(smoothing=0.1)), (classes, LossConfig(expected=1))):
        with pytest.raises(MsekitError, match="and no target is one"):
            Objectives(config, Answers.of(spec, characters, 0), np.zeros((1, 1), int), chr)


def test_a_question_that_no_training_sample_answers_is_refused():
    labels = np.zeros((3, 6), int)
    labels[:, 2] = -1
    with pytest.raises(MsekitError, match=r"no training sample answers 'signs\.sighs'"):
        Objectives(LossConfig(), Answers.of(TARGETS, characters, 0), labels, chr)


def test_opinions_are_multiplied_question_by_question():
    answers = Answers.of(TARGETS, characters, 0)
    generator = torch.Generator().manual_seed(1)
    llm = torch.randn(3, answers.asked[-1].edges.stop, generator=generator)
    parts = [torch.randn(3, len(one.space), generator=generator).log_softmax(dim=1) for one in answers.asked]
    products, weights = Products(answers.asked), torch.linspace(0, 1.5, len(answers))
    opinion = products.opinion(torch.cat(parts, dim=1))
    joint = products(llm, opinion, weights)
    for number, one in enumerate(answers.asked):
        product = Product(one.space.trie)
        own = product.opinion(parts[number])
        assert torch.equal(opinion[:, one.edges], own)
        assert torch.equal(joint[:, one.edges], product(llm[:, one.edges], own, weights[number]))


def test_each_question_has_a_weight_of_the_llm_of_its_own():
    answers = Answers.of(TARGETS, characters, 0)
    products, truth = Products(answers.asked), np.array([[1.0, 1, 0, NOTHING, 1, 0.5]] * 4)
    labels = torch.from_numpy(answers.indices(truth))
    size = answers.asked[-1].edges.stop
    llm, opinion = torch.zeros(4, size), torch.zeros(4, size)
    on_path = torch.from_numpy(answers.asked[0].space.trie.paths[1])
    llm[:, answers.asked[0].edges] += 5 * on_path  # the LLM knows the first, and of the others as little as anybody
    weights = products.fitted_weight(llm, opinion, labels)
    assert weights[0] == 1.5
    assert weights[3] == 1.0, "nobody answers it"


def test_what_files_say_of_a_sample():
    answers = Answers.of(TARGETS, characters, 0)
    edges = np.zeros((1, answers.asked[-1].edges.stop), np.float32)
    for one, chosen in zip(answers.asked, (3, 1, 0, 1, 0, 35), strict=True):
        edges[:, one.edges] = np.log(np.where(one.space.trie.paths[chosen] > 0, 0.9, 0.05))
    ((said, scores),) = records_of(answers, edges, "greedy")
    assert said == {"emotion": "angry", "signs": ["laughter", "smile"], "valence": 0.5}
    assert list(scores) == ["emotion", "signs", "valence"]
    assert scores["signs"]["laughter"] > 0.9 > 0.1 > scores["signs"]["sighs"]
    assert sum(scores["emotion"].values()) == pytest.approx(1)
    truths = truths_of(
        answers, np.array([[3, 1, 0, 1, 0, 0.5], [NOTHING, 1, NOTHING, NOTHING, 0, NOTHING], [NOTHING] * 6])
    )
    assert truths == [said, {"signs": {"laughter": True, "tears": False}}, None]
    assert Scores(edges, np.array([[3, 1, 0, 1, 0, 0.5]]), answers).collapsed("greedy") is None, "one sample is too few"


def test_what_is_made_for_one_target_says_so(parts: Parts):
    with pytest.raises(MsekitError, match="takes one target, and there are 3: emotion, signs, valence"):
        _ = parts.labels


def test_an_adapter_counts_an_opinion_for_every_question(parts: Parts):
    adapter = parts.model.adapter
    assert isinstance(adapter, OpinionatedAdapter)
    assert adapter.llm_weight.shape == (6,)
    members = parts.model.reading(parts.collators["train"]([0, 1])).members
    for one in parts.model.answers.asked:
        shares = members[..., one.labels].exp().sum(dim=-1)
        assert torch.allclose(shares, torch.ones_like(shares), atol=1e-5)
    edges = Edges(parts.model.product.opinion(members[:, 0]))
    assert edges.joint.shape == (2, parts.model.answers.asked[-1].edges.stop)


def test_scores_do_not_depend_on_what_is_scored_together(parts: Parts):
    whole = parts.model.score(parts.collators["train"](list(range(4))))
    for row in range(4):
        own = parts.model.score(parts.collators["train"]([row]))
        assert torch.allclose(own, whole[row : row + 1], atol=bound(1e-4, 0.1))
