"""An adapter by its settings and sizes: the one table of names."""

from __future__ import annotations

import torch

from msekit.adapters.chfn import CHFNAdapter
from msekit.adapters.interface import Adapter
from msekit.adapters.mag import MAGAdapter
from msekit.adapters.mse import MSEAdapter
from msekit.adapters.simple import PooledAdapter, PromptAdapter
from msekit.errors import MsekitError
from msekit.settings.config import AdapterConfig


def make_adapter(
    settings: AdapterConfig,
    text_dim: int,
    audio_width: int,
    vision_width: int,
    *,
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
        text_scale: RMS of the backbone's embeddings, which some adapters start at; of no use where trained tensors
            take the place of the fresh ones.
        learned_absent: Train a vector that stands in for an absent modality (the paper's plug-in only).
        seed: Decides the fresh weights.

    Raises:
        MsekitError: Learned stand-ins asked of another adapter.
    """
    if learned_absent and settings.name != "mse":
        raise MsekitError(f"--on-missing learned is for the adapter mse, not for {settings.name}", fix="Use zero.")
    widths, tokens = (audio_width, vision_width), settings.pseudo_tokens
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if settings.name == "mag":
            return MAGAdapter(text_dim, *widths, 1.0 if settings.conditioning == "paper" else text_scale)
        if settings.name == "chfn":
            return CHFNAdapter(text_dim, *widths)
        if settings.name == "linear":
            return PooledAdapter(text_dim, *widths, tokens)
        if settings.name == "mlp":
            return PooledAdapter(text_dim, *widths, tokens, settings.hidden)
        if settings.name == "prompt":
            return PromptAdapter(text_dim, tokens, text_scale)
        sizes = (settings.audio_hidden, settings.vision_hidden, tokens, settings.hidden)
        return MSEAdapter(text_dim, *widths, *sizes, settings.conditioning, learned_absent, settings.ablate)
