"""How many parameters an adapter trains, from sizes alone: what the paper's Table 1 rounds. No torch."""

from __future__ import annotations

SCALES = (8, 16, 32)
"""k of the Multi-Scale Fusion: MLP i goes h → d_t/k → h (the paper prints h/k; Table 1 needs d_t/k)."""


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
) -> int:
    """Trainable parameters of the MSE-Adapter (the paper's Figure 2).

    Args:
        text_dim: Width of the backbone's embeddings, d_t.
        audio_width: Features per audio frame; 0 for a set without audio (no encoder is built).
        vision_width: Features per vision frame; 0 for a set without vision.
        audio_hidden: Hidden size of the audio LSTM.
        vision_hidden: Hidden size of the vision LSTM.
        pseudo_tokens: Pseudo tokens put before the text, n.
        hidden: Width that every modality is projected to before the mix, h.
        learned_absent: Count a trained stand-in of width h for each of the two modalities.

    Returns:
        The exact number.
    """
    encoders = modality_encoder(audio_width, audio_hidden, hidden)
    encoders += modality_encoder(vision_width, vision_hidden, hidden)
    text_guide_mixer = linear(text_dim, hidden)  # W_t
    mlps = sum(linear(hidden, text_dim // k) + linear(text_dim // k, hidden) for k in SCALES)
    mix = linear(len(SCALES), 1)  # the 1×1 convolution over the stacked scales
    projector = linear(hidden, text_dim) + linear(1, pseudo_tokens)  # W_3 and W_4
    return encoders + text_guide_mixer + mlps + mix + projector + (2 * hidden if learned_absent else 0)
