"""What every adapter is to the rest of the kit: sizes it states, and a `forward` over a batch's text and features.

An adapter either makes pseudo tokens that stand before the text (`rewrites_text` False: MSE, linear, mlp, prompt), or
gives the text's own embeddings anew, shifted by what it heard and saw (`rewrites_text` True: MAG, CHFN).
"""

from __future__ import annotations

from torch import Tensor, nn


class Adapter(nn.Module):
    """The interface; sizes are attributes, so that nothing else looks into a module."""

    audio_dim: int
    """Features per audio frame that it reads; 0 where it reads no audio."""
    vision_dim: int
    """Features per vision frame that it reads; 0 where it reads no vision."""
    pseudo_tokens: int
    """P, embeddings put before the text; 0 where the text itself is rewritten."""
    rewrites_text: bool = False

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Adapt a batch.

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
