"""An adapter by its settings: the one table of names."""

from __future__ import annotations

from msekit.adapters.chfn import CHFNAdapter
from msekit.adapters.interface import Adapter
from msekit.adapters.mag import MAGAdapter
from msekit.adapters.mse import MSEAdapter
from msekit.adapters.simple import PooledAdapter, PromptAdapter
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
        MsekitError: Learned stand-ins asked of another adapter.
    """
    if learned_absent and config.name != "mse":
        raise MsekitError(f"--on-missing learned is for the adapter mse, not for {config.name}", fix="Use zero.")
    widths, tokens = (audio_width, vision_width), config.pseudo_tokens
    if config.name == "mag":
        return MAGAdapter(text_dim, *widths, 1.0 if config.conditioning == "paper" else text_scale)
    if config.name == "chfn":
        return CHFNAdapter(text_dim, *widths)
    if config.name == "linear":
        return PooledAdapter(text_dim, *widths, tokens)
    if config.name == "mlp":
        return PooledAdapter(text_dim, *widths, tokens, config.hidden)
    if config.name == "prompt":
        return PromptAdapter(text_dim, tokens, text_scale)
    sizes = (config.audio_hidden, config.vision_hidden, tokens, config.hidden)
    return MSEAdapter(text_dim, *widths, *sizes, config.conditioning, learned_absent, config.ablate)
