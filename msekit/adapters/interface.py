"""Adapter, the interface of all adapters: their sizes, and a `forward` over a batch's text and features.

An adapter either makes pseudo tokens that stand before the text (`rewrites_text` False: mse, linear, mlp, prompt), or
shifts the text's own embeddings by what the audio and the vision say (`rewrites_text` True: mag, chfn).
"""

from __future__ import annotations

from torch import Tensor, nn


class Adapter(nn.Module):
    """The interface. Sizes are attributes, so that no other file looks into a module."""

    audio_dim: int
    """Features per audio frame; 0 for an adapter that reads no audio."""
    vision_dim: int
    """Features per vision frame; 0 for an adapter that reads no vision."""
    pseudo_tokens: int
    """P, embeddings put before the text; 0 for an adapter that rewrites the text."""
    rewrites_text: bool = False
    """Whether `forward` gives the text anew instead of pseudo tokens."""

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Compute a batch's pseudo tokens, or its rewritten text.

        Args:
            text_embeddings: Embedded text, (B, T, d).
            text_mask: 1 at the tokens of the utterance, 0 at padding and at earlier utterances, (B, T).
            audio: Audio features, (B, L_a, D_a); None where there are none.
            audio_lengths: True lengths, (B,); 0 marks a sample without audio.
            vision: Vision features, (B, L_v, D_v); None where there are none.
            vision_lengths: True lengths, (B,).

        Returns:
            Pseudo tokens (B, P, d), or the rewritten text (B, T, d).
        """
        raise NotImplementedError
