"""An adapter's settings and sizes → the module, by its entry in ADAPTERS."""

from __future__ import annotations

from importlib import import_module

import torch

from msekit.adapters.interface import Adapter
from msekit.adapters.sizes import ADAPTERS, AdapterSpec
from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import opinions_of
from msekit.errors import MsekitError
from msekit.settings.config import AdapterConfig


def make_adapter(
    settings: AdapterConfig,
    text_dim: int,
    audio_width: int,
    vision_width: int,
    *,
    answers: DatasetSpec | None = None,
    text_scale: float = 1.0,
    learned_absent: bool = False,
    seed: int = 0,
) -> Adapter:
    """A freshly initialised adapter, the same for the same seed whatever ran before.

    Args:
        settings: Name, sizes, conditioning, ablation.
        text_dim: Width of the backbone's embeddings.
        audio_width: Features per audio frame; 0 where there is no audio.
        vision_width: Features per vision frame; 0 where there is no vision.
        answers: The data set whose labels an adapter with an opinion speaks of; no other adapter needs it.
        text_scale: RMS of the backbone's embeddings, which some adapters start at; of no use where trained tensors
            take the place of the fresh ones.
        learned_absent: Train a vector that stands in for an absent modality (the paper's plug-in only).
        seed: Decides the fresh weights.

    Raises:
        MsekitError: Learned stand-ins asked of another adapter.
    """
    if learned_absent and settings.name != "mse":
        raise MsekitError(f"--on-missing learned is for the adapter mse, not for {settings.name}", fix="Use zero.")
    spec = AdapterSpec(
        text_dim=text_dim,
        audio_dim=audio_width,
        vision_dim=vision_width,
        audio_hidden=settings.audio_hidden,
        vision_hidden=settings.vision_hidden,
        pseudo_tokens=settings.pseudo_tokens,
        hidden=settings.hidden,
        learned_absent=learned_absent,
        parts=settings.parts,
        conditioning=settings.conditioning,
        text_scale=text_scale,
        state_layers=len(settings.depths),
        classes=len(answers.labels or ()) if answers else 0,
        values=answers.grid if answers else (),
        questions=opinions_of(answers) if answers else (),
        dropout=settings.dropout,
        noise=settings.noise,
    )
    module, _, function = ADAPTERS[settings.name].made_by.partition(":")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter: Adapter = getattr(import_module(module), function)(spec)
    return adapter
