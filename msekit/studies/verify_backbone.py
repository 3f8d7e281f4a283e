"""`msekit verify-backbone`: the LLM is the one it was, with the plug-in trained, attached and detached."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from msekit.adapters.interface import OpinionatedAdapter
from msekit.adapters.sizes import STATISTICS
from msekit.backbones.backbone import Backbone
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.load import load_backbone
from msekit.backbones.precision import default_device, dtype_here
from msekit.data.batches.batch import Batch
from msekit.inference.restore import restored_adapter
from msekit.model.assemble import assemble
from msekit.model.losses import objective_of
from msekit.model.mse_model import MSEModel
from msekit.model.text_states import FreshStates, states_wanted
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.description import Description, read_description
from msekit.runs.folder import find_run
from msekit.runs.report import read_report
from msekit.settings.config import LossConfig

PROMPTS = (
    "The capital of France is",
    "2 + 2 =",
    "今天天气很好，我们",
    "def add(a, b):\n    return",
    "Once upon a time there was a small bear who",
)
"""Plain texts, none of which has to do with the plug-in's task."""
_FRAMES, _SAMPLES = 20, 2


class Source(TypedDict):
    """Fingerprints of the backbone's source tensors, or of its configuration and tokenizer."""

    trained_on: str | None
    """None where an older msekit made the run and it does not say."""
    found: str | None


class PromptCheck(TypedDict):
    """One plain prompt, read alone and with the plug-in beside."""

    prompt: str
    identical: bool
    largest_difference: float


class Evidence(TypedDict):
    """What `msekit verify-backbone --format json` prints."""

    run: str
    backbone: str
    quantization: str
    dtype: str
    source: Source
    configuration: Source
    weights_in_training: dict[str, str] | None
    """`before` and `after`; None where the run has no report."""
    weights_now: dict[str, str]
    prompts: list[PromptCheck]
    adapter_gradient_norm: float
    intact: bool
    """Whether all of it agrees."""


def verify_backbone(run: Path, reporter: Reporter) -> Evidence:
    """Check that a run left its LLM alone and that attaching the plug-in changes nothing for plain text.

    The backbone is loaded as in training. Its weights are fingerprinted and plain prompts read; then the plug-in is
    attached, takes a training step's forward and backward pass and scores a batch; then both are repeated.

    Args:
        run: The run folder. Its data set is not needed.
        reporter: Where progress goes.

    Returns:
        The document of `msekit verify-backbone --format json`.

    Raises:
        MsekitError: No run there, a damaged one, or its backbone is not at hand.
    """
    folder = find_run(run)
    config = read_config(folder)
    description = read_description(folder)
    device = default_device()
    with reporter.status(f"loading {config.backbone}"):
        backbone = load_backbone(
            config.backbone,
            config.model.quantization,
            dtype_here(description.backbone.dtype, device),
            device=device,
            double_quantization=config.model.double_quantization,
        )
    before, alone = fingerprint_model(backbone.model), plain_logits(backbone)
    model = attached(folder, description, backbone)
    gradient = use(model, description)
    beside, after = plain_logits(backbone), fingerprint_model(backbone.model)
    report = read_report(folder)
    training = report.backbone_weights if report else None
    prompts: list[PromptCheck] = [
        {"prompt": text, "identical": torch.equal(a, b), "largest_difference": float((a - b).abs().max())}
        for text, a, b in zip(PROMPTS, alone, beside, strict=True)
    ]
    trained = description.backbone
    configuration: Source = {"trained_on": trained.configuration, "found": backbone.configuration}
    same = trained.fingerprint == backbone.fingerprint
    same = same and trained.configuration in (None, backbone.configuration)
    intact = same and before == after and all(line["identical"] for line in prompts)
    return {
        "run": str(folder),
        "backbone": config.backbone,
        "quantization": config.model.quantization,
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "source": {"trained_on": trained.fingerprint, "found": backbone.fingerprint},
        "configuration": configuration,
        "weights_in_training": training.model_dump() if training else None,
        "weights_now": {"before": before, "after": after},
        "prompts": prompts,
        "adapter_gradient_norm": gradient,
        "intact": intact and (training is None or training.before == training.after),
    }


@torch.no_grad()
def plain_logits(backbone: Backbone) -> list[Tensor]:
    """Logits of every token of each plain prompt, (S, V) float32, read as any user of the LLM would."""
    texts = [torch.tensor([[*backbone.bos, *backbone.encode(text)]], device=backbone.device) for text in PROMPTS]
    return [backbone.model(input_ids=ids).logits[0].float() for ids in texts]


def attached(folder: Path, description: Description, backbone: Backbone) -> MSEModel:
    """The run's adapter in front of the backbone, in the layout that it was trained with.

    Raises:
        MsekitError: The adapter's file does not fit its description.
    """
    adapter = restored_adapter(folder, description)
    return assemble(backbone, adapter, description.dataset, description.layout, description.text_limit)


def evidence_beside(
    model: MSEModel, description: Description, texts: list[list[int]], generator: torch.Generator
) -> dict[str, Tensor | None]:
    """What an OpinionatedAdapter reads beside frames: the LLM's own states of the texts, random summaries."""
    wanted = states_wanted(description.adapter, description.dataset, model.backbone)
    states = FreshStates(model.backbone, texts, None, wanted).checked()
    summaries: dict[str, Tensor | None] = {
        f"{name}_summary": torch.randn(_SAMPLES, STATISTICS * width, generator=generator)
        for name, width in description.widths.items()
        if width
    }
    return {"text_states": states(range(len(texts))), **summaries}


def use(model: MSEModel, description: Description) -> float:
    """A forward and backward pass and a scoring on random features; the norm of the adapter's gradient."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([model.backbone.encode("I did not expect to see you here.")] * _SAMPLES)
    features: dict[str, Tensor | None] = {}
    for name, width in description.widths.items():
        frames = torch.randn(_SAMPLES, _FRAMES, width, generator=generator) if width else None
        features |= {name: frames, f"{name}_lengths": None if frames is None else torch.full((_SAMPLES,), _FRAMES)}
    if isinstance(model.adapter, OpinionatedAdapter):
        features |= evidence_beside(model, description, ids.tolist(), generator)
        seen = np.zeros((1, len(model.answers)), int) if model.answers.several else np.arange(len(model.labels))
        model.objective = objective_of(LossConfig(), model.answers, seen, model.backbone.decode)
    batch = Batch(
        index=torch.arange(_SAMPLES),
        text_ids=ids,
        text_lengths=torch.full((_SAMPLES,), ids.shape[1]),
        label=torch.zeros(_SAMPLES, len(model.answers)).long() if model.answers.several else torch.arange(_SAMPLES),
        weight=torch.ones(_SAMPLES),
        **features,
    ).to(model.backbone.device)
    model.train()
    model(batch).backward()
    model.score(batch)
    gradients = [parameter.grad for parameter in model.adapter.parameters() if parameter.grad is not None]
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm())
