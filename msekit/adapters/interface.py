"""Adapter, the interface of all adapters: their sizes, and a `forward` over a batch's text and features.

An adapter either makes pseudo tokens that stand before the text (`rewrites_text` False: mse, linear, mlp, prompt), or
shifts the text's own embeddings by what the audio and the vision say (`rewrites_text` True: mag, chfn). An
OpinionatedAdapter (mse-states) makes pseudo tokens too, from more evidence than the embeddings, and says by itself how
likely every label is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

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


class Evidence(NamedTuple):
    """What an OpinionatedAdapter reads of a batch."""

    text_states: Tensor
    """(B, S, 2, d) hidden states of the frozen LLM at S layers: of the last token, and the mean over the text."""
    audio: Tensor | None
    """(B, L_a, D_a) frames; None where there are none."""
    audio_lengths: Tensor | None
    """(B,); 0 marks a sample without audio."""
    audio_summary: Tensor | None
    """(B, 5 D_a) statistics over a sample's frames (`data/batches/preprocess.py`)."""
    vision: Tensor | None
    """As the audio."""
    vision_lengths: Tensor | None
    """As the audio's."""
    vision_summary: Tensor | None
    """As the audio's."""
    draw: Tensor | None = None
    """(B,) int64, what decides a sample's dropout (`sample_dropout.py`); None outside of training."""

    def of(self, modality: str) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, lengths and summary of a modality that there is."""
        return tuple(getattr(self, modality + part) for part in ("", "_lengths", "_summary"))


class Reading(NamedTuple):
    """What an OpinionatedAdapter makes of it."""

    mixture: Tensor
    """(B, h), from which the pseudo tokens are made."""
    members: Tensor
    """(B, M, K) log-probabilities over the labels, summing to 1, by every member of an ensemble; of several questions
    one after the other, each summing to 1."""
    draw: Tensor | None
    """The evidence's."""

    @property
    def opinion(self) -> Tensor:
        """(B, K) log of the members' mean probabilities."""
        return self.members.logsumexp(dim=1) - math.log(self.members.shape[1])


class OpinionatedAdapter(Adapter):
    """An adapter whose log-probabilities over the labels are added to the LLM's own (`model/product.py`)."""

    llm_weight: Tensor
    """(Q,) what the LLM's are multiplied with before, for each question: a buffer, 1 until fitted on validation."""

    def fit(self, batches: Iterable[Evidence]) -> None:
        """Take the train split's statistics, once before training."""
        raise NotImplementedError

    def read(self, evidence: Evidence) -> Reading:
        """Mix the evidence, and say how likely every label is; no pass through the LLM is needed for it."""
        raise NotImplementedError

    def opinion_parameters(self) -> Iterable[nn.Parameter]:
        """What decides the opinion."""
        raise NotImplementedError

    def pseudo(self, reading: Reading) -> Tensor:
        """Pseudo tokens of the mixture, (B, P, d)."""
        raise NotImplementedError
