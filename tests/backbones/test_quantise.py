"""8 and 4 bit as a table: backbone kind x precision x checkpointing, each against the same backbone in fp32."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msekit.adapters.mse import MSEAdapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.load import load_backbone
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.labels import LabelSpace
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout

TINY = ("tiny-llama", "qwen1-tiny", "chatglm3-tiny")
HELD = ("int8", "nf4", "nf4-double")
LEAST_COSINE = {"int8": 0.98, "nf4": 0.65, "nf4-double": 0.65}
"""Adapter gradients against those in fp32; the tiny checkpoints' strong random weights are harsh on 4 bit."""
FURTHEST_SCORE = {"int8": 0.4, "nf4": 3.0, "nf4-double": 3.0}
"""Log-probabilities of labels against those in fp32."""
SMOLLM2_COSINE = {"int8": 0.95, "nf4": 0.25, "nf4-double": 0.25}
"""4 bit turns the gradient of so small an LLM away (.38, .41 seen); the weights' rounding does, not its kernels."""
SMOLLM2_SCORE = {"int8": 0.2, "nf4": 1.0, "nf4-double": 1.0}
AUDIO, VISION, FRAMES = 8, 6, 5
TEXTS = ("I did not expect to see you here.", "That was quite a day.", "And then she just said yes.", "Well.")


@dataclass
class Step:
    """What one training step and one scoring gave."""

    gradient: Tensor
    """Of every adapter parameter, in one row."""
    scores: Tensor
    """(B, E) log-probabilities."""
    scores_before: Tensor
    fingerprints: set[str]


def take_step(backbone: Backbone) -> Step:
    """Score, train and score again, as a run does, with an adapter and features that are the same for any precision."""
    spec = DATASETS["synthetic-erc"]
    labels = LabelSpace(spec, backbone.encode, backbone.end)
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt)
    torch.manual_seed(3)
    adapter = MSEAdapter(backbone.text_dim, AUDIO, VISION, 16, 16, 4, 256, "unit")
    model = MSEModel(backbone, adapter, layout, labels)
    ids = [torch.tensor(backbone.encode(text)) for text in TEXTS]
    lengths = torch.full((len(TEXTS),), FRAMES)
    batch = Batch(
        index=torch.arange(len(TEXTS)),
        text_ids=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        text_lengths=torch.tensor([len(row) for row in ids]),
        audio=torch.randn(len(TEXTS), FRAMES, AUDIO),
        audio_lengths=lengths,
        vision=torch.randn(len(TEXTS), FRAMES, VISION),
        vision_lengths=lengths,
        label=torch.arange(len(TEXTS)),
        weight=torch.ones(len(TEXTS)),
    )
    fingerprints = {fingerprint_model(backbone.model)}
    before = model.score(batch)
    model(batch).backward()
    after = model.score(batch)
    fingerprints.add(fingerprint_model(backbone.model))
    gradients = {name: parameter.grad for name, parameter in adapter.named_parameters()}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values()), gradients.keys()
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    return Step(torch.cat([g.flatten() for g in gradients.values() if g is not None]), after, before, fingerprints)


def name_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "tiny-llama":
        return kind
    return str(request.getfixturevalue("test_data") / "backbones" / kind)


def load(name: str, held: str, checkpointing: bool = False, dtype: str = "fp32") -> Backbone:
    kind, _, double = held.partition("-")
    return load_backbone(name, kind, dtype, device="cpu", checkpointing=checkpointing, double_quantization=bool(double))


@pytest.fixture(scope="module")
def full_precision(request: pytest.FixtureRequest):
    """The step in fp32, taken once for each kind."""
    taken: dict[str, Step] = {}

    def step(name: str) -> Step:
        if name not in taken:
            taken[name] = take_step(load(name, "none"))
        return taken[name]

    return step


def compare(step: Step, reference: Step, least_cosine: float, furthest_score: float) -> None:
    assert len(step.fingerprints) == 1, "the backbone changed"
    assert torch.equal(step.scores_before, step.scores), "a training step changed what is scored"
    cosine = float(torch.nn.functional.cosine_similarity(step.gradient, reference.gradient, dim=0))
    distance = float((step.scores - reference.scores).abs().max())
    assert cosine >= least_cosine
    assert distance <= furthest_score


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("kind", TINY)
def test_the_table(kind: str, held: str, checkpointing: bool, full_precision, request):
    name = name_of(kind, request)
    step = take_step(load(name, held, checkpointing))
    compare(step, full_precision(name), LEAST_COSINE[held], FURTHEST_SCORE[held])


@pytest.mark.parametrize("held", ["nf4", "nf4-double"])
def test_what_differs_is_the_weights_rounding_and_nothing_else(held: str):
    """The same step with the 4-bit weights expanded into an fp32 model."""
    import bitsandbytes.functional as bnb

    quantised, plain = load("tiny-llama", held), load("tiny-llama", "none")
    layers = dict(plain.model.named_modules())
    rounded = 0
    for name, layer in quantised.model.named_modules():
        if getattr(layer, "quant_state", None) is not None:
            expanded = bnb.dequantize_4bit(layer.weight.data, layer.quant_state).float()
            error = float((expanded - layers[name].weight).norm() / layers[name].weight.norm())
            assert 0.08 < error < 0.11, "as nf4 rounds normally distributed weights"
            layers[name].weight.data = expanded
            rounded += 1
    assert rounded == 14
    compare(take_step(quantised), take_step(plain), 0.99999, 1e-4)


def test_bf16_weights_that_stay_are_bf16_and_the_adapter_is_not():
    backbone = load("tiny-llama", "nf4", dtype="bf16")
    assert backbone.model.dtype == torch.bfloat16
    assert backbone.model.lm_head.weight.dtype == torch.bfloat16
    compare(take_step(backbone), take_step(load("tiny-llama", "nf4")), 0.95, 1.0)


@pytest.mark.parametrize("held", HELD)
def test_a_fingerprint_notices_a_changed_scale(held: str):
    from msekit.backbones.quantise import quantization_state

    backbone = load("tiny-llama", held)
    before = fingerprint_model(backbone.model)
    names, tensors = zip(*quantization_state(backbone.model), strict=True)
    assert sum("absmax" in name or "SCB" in name for name in names) >= 14
    tensors[3].view(-1)[0] += 1
    assert fingerprint_model(backbone.model) != before


@pytest.mark.slow
@pytest.mark.parametrize("held", HELD)
def test_the_table_on_the_real_small_llm(held: str, full_precision, smollm2: str):
    step = take_step(load(smollm2, held))
    compare(step, full_precision(smollm2), SMOLLM2_COSINE[held], SMOLLM2_SCORE[held])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint whose MLP is 96 wide: no whole number of 4-bit blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from msekit.backbones.checkpoints.tiny import tiny_llama_folder

    folder = tmp_path_factory.mktemp("narrow")
    for file in tiny_llama_folder().glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    config = LlamaConfig(
        vocab_size=259, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_width_that_4_bit_cannot_hold_is_named(narrow: Path):
    with pytest.raises(MsekitError, match=r"divisible by 64; model\.layers\.0\.mlp\.down_proj has 96"):
        load(str(narrow), "nf4")
    assert take_step(load(str(narrow), "int8")).gradient.isfinite().all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(MsekitError, match="none, int8 or nf4"):
        load("tiny-llama", "int3")


def test_the_cast_warning_is_silenced_and_no_other(caplog: pytest.LogCaptureFixture):
    backbone = load("tiny-llama", "int8")
    for layer in backbone.model.modules():
        layer.training = False  # the path that a GPU takes, which warns at every call
    with caplog.at_level(logging.WARNING):
        backbone.model(input_ids=torch.tensor([[1, 2, 3]]))
        logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.slow
def test_without_bitsandbytes_only_this_is_missing():
    program = "import sys; sys.modules['bitsandbytes'] = None\nfrom msekit.backbones.load import load_backbone\n"
    program += "load_backbone('tiny-llama', device='cpu')\nload_backbone('tiny-llama', 'nf4', device='cpu')"
    done = python(program)
    assert done.returncode == 1
    assert "nf4 needs bitsandbytes" in done.stderr.splitlines()[-1]
    assert 'pip install "msekit[quant]"' in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_no_kernel_is_fetched_from_the_hub(tmp_path: Path):
    """bitsandbytes asks the package `kernels`, where it is installed, for native code while it is imported."""
    fetched = tmp_path / "fetched"
    (tmp_path / "kernels.py").write_text(f"def get_kernel(*a, **k):\n    open({str(fetched)!r}, 'w').close()\n")
    program = "import kernels\nfrom msekit.backbones.load import load_backbone\n"
    program += "load_backbone('tiny-llama', 'nf4', device='cpu')\nimport sys; assert sys.modules['kernels'] is kernels"
    done = python(program, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not fetched.exists()
