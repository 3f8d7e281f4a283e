"""The assembled model on the tiny backbone: layout, loss and label scores against slow, obvious computations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from as_on_gpu import bound

from msekit.adapters.mse import MSEAdapter
from msekit.backbones.fingerprint import fingerprint_model
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DatasetSpec
from msekit.model.labels import LabelSpace
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout

MSA = DatasetSpec(name="x", task="msa", layout="msa-pickle", range=(-3.0, 3.0))
ERC = DatasetSpec(name="x", task="erc", layout="erc-pickle", labels=tuple(f"c{i}" for i in range(12)))
TEXTS = ("ok", "a rather longer text", "")


def build(backbone, spec, seed=0):
    torch.manual_seed(seed)
    adapter = MSEAdapter(backbone.text_dim, 6, 5, 8, 4, 3, conditioning="unit")
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt)
    return MSEModel(backbone, adapter, layout, LabelSpace(spec, backbone.encode, backbone.end))


def batch_of(backbone, labels, texts=TEXTS):
    size = len(texts)
    ids = [torch.tensor(backbone.encode(text), dtype=torch.long) for text in texts]
    generator = torch.Generator().manual_seed(3)
    return Batch(
        index=torch.arange(size),
        text_ids=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        text_lengths=torch.tensor([len(text) for text in ids]),
        audio=torch.randn(size, 7, 6, generator=generator),
        audio_lengths=torch.tensor([7, 3, 1])[:size],
        vision=torch.randn(size, 4, 5, generator=generator),
        vision_lengths=torch.tensor([1, 4, 0])[:size],
        label=torch.tensor(labels)[:size],
        weight=torch.ones(size),
        context_lengths=torch.tensor([0, 2, 0])[:size],
    )


def row_of(batch: Batch, row: int) -> Batch:
    every = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    parts = {name: None if tensor is None else tensor[row : row + 1] for name, tensor in every.items()}
    length = int(parts["text_lengths"])
    return Batch(**(parts | {"text_ids": parts["text_ids"][:, :length]}))


def log_probability(model, batch, row, label):
    """One label of one sample by plain teacher forcing: no batch, no padding, no trie."""
    alone = row_of(batch, row)
    text = model.backbone.embed(alone.text_ids)
    frames = (alone.audio, alone.audio_lengths, alone.vision, alone.vision_lengths)
    pseudo = model.adapter(text.float(), alone.text_mask, *frames).to(text.dtype)
    tokens = model.labels.tokens[label]
    opening, closing, answer = (
        model.backbone.embed(torch.tensor([ids])) for ids in (model.layout.opening, model.layout.closing, tokens)
    )
    whole = torch.cat([opening, pseudo, text, closing, answer], dim=1)
    with model.backbone.exact_logits.of(model.label_tokens):
        logits = model.backbone.model(inputs_embeds=whole).logits[0].log_softmax(dim=-1)
    start = whole.shape[1] - len(tokens) - 1
    return sum(float(logits[start + i, token]) for i, token in enumerate(tokens))


@pytest.mark.parametrize("spec", [MSA, ERC], ids=["intensities", "12 classes with end tokens"])
def test_scores_agree_with_scoring_every_label_separately(tiny, spec):
    model = build(tiny, spec)
    batch = batch_of(tiny, [0, 1, 2])
    scores = model.labels.log_probabilities(model.score(batch).numpy())
    with torch.no_grad():
        expected = np.array(
            [[log_probability(model, batch, row, k) for k in range(len(model.labels))] for row in range(3)]
        )
    assert np.abs(scores - expected).max() <= bound(1e-4, 0.05)


@pytest.mark.parametrize("spec", [MSA, ERC], ids=["intensities", "12 classes with end tokens"])
def test_the_loss_is_the_label_cross_entropy_summed(tiny, spec):
    model = build(tiny, spec)
    batch = batch_of(tiny, [3, 10, 7])
    with torch.no_grad():
        loss = float(model(batch))
        expected = -sum(log_probability(model, batch, row, int(batch.label[row])) for row in range(3))
    assert loss == pytest.approx(expected, abs=bound(1e-4, 0.1))


def test_the_loss_is_exact_over_a_large_vocabulary(tiny):
    model, batch = build(tiny, MSA), batch_of(tiny, [3, 10, 7])
    targets = model.targets[batch.label]
    logits = 3 * torch.randn(*targets.shape, 49152, generator=torch.Generator().manual_seed(0))
    exact = -logits.double().log_softmax(dim=-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    assert float(model.loss(logits, batch)) == pytest.approx(float(exact[targets >= 0].sum()), rel=1e-6)


def test_a_filler_sample_does_not_count(tiny):
    model, batch = build(tiny, ERC), batch_of(tiny, [3, 10, 7])
    batch.weight = torch.tensor([1.0, 0.0, 1.0])
    with torch.no_grad():
        expected = -sum(log_probability(model, batch, row, int(batch.label[row])) for row in (0, 2))
        assert float(model(batch)) == pytest.approx(expected, abs=bound(1e-4, 0.1))


def test_the_batch_a_sample_is_in_changes_nothing(tiny):
    model, batch = build(tiny, MSA), batch_of(tiny, [0, 1, 2])
    together = model.score(batch)
    for row in range(3):
        assert torch.allclose(together[row], model.score(row_of(batch, row))[0], atol=bound(1e-5, 0.02))


def test_the_layout_token_by_token(tiny):
    model, batch = build(tiny, ERC), batch_of(tiny, [10, 1, 2])
    sequence = model.laid_out(batch).sequence
    opening, closing = model.layout.opening, model.layout.closing
    for row, text in enumerate(TEXTS):
        ids = tiny.encode(text)
        answer = model.labels.tokens[int(batch.label[row])][:-1]
        real = sequence.mask[row].bool()
        assert int(real.sum()) == len(opening) + 3 + len(ids) + len(closing) + len(answer)
        assert sequence.positions[row][real].tolist() == list(range(int(real.sum())))
        embeddings = sequence.embeddings[row][real]
        for part, start in ((opening, 0), (ids, len(opening) + 3), (closing, len(opening) + 3 + len(ids))):
            assert torch.equal(embeddings[start : start + len(part)], tiny.embed(torch.tensor(part, dtype=torch.long)))
        assert torch.equal(embeddings[int(real.sum()) - len(answer) :], tiny.embed(torch.tensor(answer)))
    assert tiny.bos == [1]
    assert opening[0] == 1


def test_only_the_adapter_trains_and_the_backbone_stays(tiny):
    model, batch = build(tiny, ERC), batch_of(tiny, [3, 10, 7])
    before = fingerprint_model(tiny.model)
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())
    assert not tiny.model.training
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"adapter"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        model(batch).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.adapter.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert fingerprint_model(tiny.model) == before


def test_recomputed_layers_give_the_same_gradients(tiny, own_cache):
    from msekit.backbones.load import load_backbone

    gradients = []
    for backbone in (tiny, load_backbone("tiny-llama", device="cpu", checkpointing=True)):
        model = build(backbone, ERC)
        model(batch_of(backbone, [3, 10, 7])).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_recomputed_layers_keep_no_random_state(own_cache, monkeypatch):
    from msekit.backbones.load import load_backbone

    backbone = load_backbone("tiny-llama", device="cpu", checkpointing=True, passes="plain")
    again = []
    for layer in backbone.model.model.layers:
        layer.input_layernorm.register_forward_hook(lambda *_: again.append(1))
    model, batch = build(backbone, ERC), batch_of(backbone, [3, 10, 7])
    model(batch).backward()
    layers = len(backbone.model.model.layers)
    assert len(again) == 2 * layers - 1, "all but the last are recomputed"
    monkeypatch.setattr(torch, "get_rng_state", lambda: pytest.fail("a layer's random state was read"))
    model(batch).backward()


def test_plain_text_gives_identical_logits_with_the_plug_in_attached(tiny):
    from transformers import AutoModelForCausalLM

    from msekit.backbones.checkpoints.tiny import tiny_llama_folder

    attention, dtype = tiny.model.config._attn_implementation, tiny.model.dtype
    bare = AutoModelForCausalLM.from_pretrained(tiny_llama_folder(), attn_implementation=attention, dtype=dtype).eval()
    build(tiny, ERC)
    ids = torch.tensor([tiny.encode("what a day")])
    with torch.no_grad():
        assert torch.equal(tiny.model(ids).logits, bare(ids).logits)
