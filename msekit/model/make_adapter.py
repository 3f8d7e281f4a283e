"""An adapter's settings → the module, by its entry in ADAPTERS."""

from __future__ import annotations

from importlib import import_module

from msekit.adapters.interface import Adapter
from msekit.adapters.sizes import ADAPTERS, AdapterSpec
from msekit.errors import MsekitError
from msekit.settings.config import AdapterConfig


def adapter_from(
    config: AdapterConfig,
    text_dim: int,
    audio_width: int,
    vision_width: int,
    text_scale: float,
    learned_absent: bool = False,
) -> Adapter:
    """Make the adapter that settings ask for, with fresh weights from torch's random state.

    Args:
        config: Name, sizes, conditioning, ablation.
        text_dim: Width of the backbone's embeddings.
        audio_width: Features per audio frame; 0 where there is no audio.
        vision_width: Features per vision frame; 0 where there is no vision.
        text_scale: RMS of the backbone's embeddings.
        learned_absent: Train a vector that stands in for an absent modality (the paper's plug-in only).

    Raises:
        MsekitError: The settings ask for learned stand-ins of another adapter than the paper's.
    """
    if learned_absent and config.name != "mse":
        raise MsekitError(f"--on-missing learned is for the adapter mse, not for {config.name}", fix="Use zero.")
    spec = AdapterSpec(
        text_dim=text_dim,
        audio_dim=audio_width,
        vision_dim=vision_width,
        audio_hidden=config.audio_hidden,
        vision_hidden=config.vision_hidden,
        pseudo_tokens=config.pseudo_tokens,
        hidden=config.hidden,
        learned_absent=learned_absent,
        parts=config.parts,
        conditioning=config.conditioning,
        text_scale=text_scale,
    )
    module, _, function = ADAPTERS[config.name].made_by.partition(":")
    adapter: Adapter = getattr(import_module(module), function)(spec)
    return adapter
