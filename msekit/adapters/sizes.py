"""How many parameters an adapter trains, from sizes alone: what the paper's Table 1 rounds. No torch."""

from __future__ import annotations

from typing import Literal, get_args

SCALES = (8, 16, 32)
"""k of the Multi-Scale Fusion: MLP i goes h → d_t/k → h (the paper prints h/k; Table 1 needs d_t/k)."""

AdapterName = Literal["mse", "mag", "chfn", "linear", "mlp", "prompt"]
"""The paper's plug-in, its rivals in Table 5, and three plain ones."""
Ablation = Literal["no-audio", "no-vision", "no-text", "no-audio-vision", "no-tgm", "no-msf"]
"""The rows of the paper's Table 4."""
ADAPTERS: tuple[AdapterName, ...] = get_args(AdapterName)
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
NO_PSEUDO_TOKENS: tuple[AdapterName, ...] = ("mag", "chfn")
"""Adapters that change the text's embeddings and put nothing before them."""


def linear(inputs: int, outputs: int) -> int:
    """Weights and biases of a linear layer."""
    return inputs * outputs + outputs


def lstm(width: int, hidden: int) -> int:
    """A single-layer, one-direction LSTM: four gates over input and state, each with torch's two bias vectors."""
    return 4 * hidden * (width + hidden + 2)


def modality_encoder(width: int, lstm_hidden: int, hidden: int) -> int:
    """LSTM and projection (W_a or W_v) of one modality; nothing for a modality that the set does not have."""
    return lstm(width, lstm_hidden) + linear(lstm_hidden, hidden) if width else 0


def mse_parameter_count(
    text_dim: int,
    audio_width: int,
    vision_width: int,
    audio_hidden: int,
    vision_hidden: int,
    pseudo_tokens: int,
    hidden: int = 256,
    learned_absent: bool = False,
    ablate: Ablation | None = None,
) -> int:
    """Trainable parameters of the MSE-Adapter (the paper's Figure 2), or of one of its ablations (Table 4).

    Args:
        text_dim: Width of the backbone's embeddings, d_t.
        audio_width: Features per audio frame; 0 for a set without audio (no encoder is built).
        vision_width: Features per vision frame; 0 for a set without vision.
        audio_hidden: Hidden size of the audio LSTM.
        vision_hidden: Hidden size of the vision LSTM.
        pseudo_tokens: Pseudo tokens put before the text, n.
        hidden: Width that every modality is projected to before the mix, h.
        learned_absent: Count a trained stand-in of width h for each of the two modalities.
        ablate: What is left out.

    Returns:
        The exact number.
    """
    if ablate == "no-audio-vision":  # random states in the LSTMs' place; W_a and W_v stay
        encoders = linear(audio_hidden, hidden) * (audio_width > 0) + linear(vision_hidden, hidden) * (vision_width > 0)
    else:
        encoders = modality_encoder(audio_width if ablate != "no-audio" else 0, audio_hidden, hidden)
        encoders += modality_encoder(vision_width if ablate != "no-vision" else 0, vision_hidden, hidden)
    text_guide_mixer = 0 if ablate in ("no-text", "no-tgm") else linear(text_dim, hidden)  # W_t
    mlps = sum(linear(hidden, text_dim // k) + linear(text_dim // k, hidden) for k in SCALES)
    mix = linear(len(SCALES), 1)  # the 1×1 convolution over the stacked scales
    fusion = 0 if ablate == "no-msf" else mlps + mix
    projector = linear(hidden, text_dim) + linear(1, pseudo_tokens)  # W_3 and W_4
    return encoders + text_guide_mixer + fusion + projector + (2 * hidden if learned_absent else 0)


def parameter_count(
    name: AdapterName,
    text_dim: int,
    audio_width: int,
    vision_width: int,
    audio_hidden: int,
    vision_hidden: int,
    pseudo_tokens: int,
    hidden: int = 256,
    ablate: Ablation | None = None,
) -> int:
    """Trainable parameters of any adapter; arguments as for `mse_parameter_count`.

    MAG: per modality a gate over text and modality and a displacement map, and one layer norm: 34,471,936 on
    ChatGLM3-6B and MOSEI, the paper's 34.47M. CHFN: three d x d maps without biases and a projection per modality:
    50,786,304, the paper's 50.79M.
    """
    widths = [width for width in (audio_width, vision_width) if width]
    if name == "mag":
        return sum(linear(width + text_dim, text_dim) + linear(width, text_dim) for width in widths) + 2 * text_dim
    if name == "chfn":
        return 3 * text_dim**2 + sum(linear(width, text_dim) for width in widths)
    if name == "linear":
        return sum(linear(width, pseudo_tokens * text_dim) for width in widths)
    if name == "mlp":
        return sum(linear(width, hidden) for width in widths) + linear(hidden, text_dim) + linear(1, pseudo_tokens)
    if name == "prompt":
        return pseudo_tokens * text_dim
    sizes = (audio_hidden, vision_hidden, pseudo_tokens, hidden)
    return mse_parameter_count(text_dim, audio_width, vision_width, *sizes, ablate=ablate)
