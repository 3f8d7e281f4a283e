"""`mse-states`: the MSE-Adapter, guided by what the frozen LLM itself makes of the text, with an opinion of its own.

The paper's Text-Guide-Mixer is guided by the mean of the text's *embeddings*, a bag of words. Here the guide comes from
*hidden states* of the same frozen LLM, read once per text (`backbones/hidden_states.py`). Beside the paper's parts:

- StatesReader: the states of several layers, standardised, mixed with learned weights → the guide, and a text path
  into the mixture, so that a sample without audio or vision still gets pseudo tokens of its own.
- FramesEncoder: beside the LSTM's last state, statistics over all frames.
- OpinionHead: the mixture → log-probabilities over the labels, which are multiplied with the LLM's
  (`model/product.py`).
- Pseudo tokens at the size of the LLM's own embeddings, and dropout.

Shapes: B batch, S layers read, L frames of a modality, D features of a frame, d text width of the backbone, H hidden
size of an LSTM, r rank of the states' projection, h = 256 width of the mixture, P pseudo tokens, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Evidence, OpinionatedAdapter, Reading
from msekit.adapters.mse import ModalityEncoder, MultiScaleFusion, PseudoTokenProjector
from msekit.adapters.sample_dropout import SampleDropout
from msekit.adapters.sizes import STATES_RANK, STATISTICS, AdapterSpec

_FURTHEST = 5.0  # deviations; what lies further out is cut there


class Moments:
    """Mean and deviation of samples that come in batches, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.shift = self.total = self.squares = torch.zeros(0)

    def add(self, rows_B: Tensor) -> None:
        """Take in a batch, (B, …)."""
        if not len(rows_B):
            return
        rows_B = rows_B.double()
        if not self.count:  # sums of deviations from a first guess: no difference of large numbers
            self.shift = rows_B.mean(dim=0)
            self.total = self.squares = torch.zeros_like(self.shift)
        self.count += len(rows_B)
        self.total = self.total + (rows_B - self.shift).sum(dim=0)
        self.squares = self.squares + ((rows_B - self.shift) ** 2).sum(dim=0)

    @property
    def mean(self) -> Tensor:
        """Of one sample's shape."""
        return self.shift + self.total / self.count

    @property
    def deviation(self) -> Tensor:
        """Of one sample's shape."""
        return (self.squares / self.count - (self.total / self.count) ** 2).clamp(min=0).sqrt()


class Standardise(nn.Module):
    """Numbers → deviations from the train split's mean, which `fit` sets once before training; nothing trains.

    Args:
        shape: Of one sample.
    """

    mean: Tensor
    scale: Tensor
    """1 / deviation; 0 for a number that never varies."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @torch.no_grad()
    def fit(self, moments: Moments) -> None:
        """Take the statistics."""
        mean, deviation = moments.mean, moments.deviation
        varies = deviation > 1e-6 * (1 + mean.abs())  # less is rounding
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation.clamp(min=1e-30), 0.0))

    def forward(self, rows_B: Tensor) -> Tensor:
        """Standardise, (B, …) → (B, …) float32."""
        return ((rows_B.float() - self.mean) * self.scale).clamp(-_FURTHEST, _FURTHEST)


class StatesReader(nn.Module):
    """Hidden states of the text → the guide of the mixer and the text's own part of the mixture.

    Args:
        layers: S.
        text_dim: d.
        mixed: h.
        dropout: Share of the states' numbers, and of their projection's, that training leaves out.
    """

    def __init__(self, layers: int, text_dim: int, mixed: int, dropout: float) -> None:
        super().__init__()
        self.standardise = Standardise(layers, 2, text_dim)
        self.layer_weights = nn.Parameter(torch.zeros(layers))
        self.drop_states, self.drop_low = SampleDropout(dropout, 1), SampleDropout(dropout, 2)
        self.down = nn.Linear(2 * text_dim, STATES_RANK)
        self.guide = nn.Linear(STATES_RANK, mixed)
        self.text = nn.Linear(STATES_RANK, mixed)

    def forward(self, states_BS2d: Tensor, draw_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, S, 2, d) → guide and text path, (B, h) each."""
        weights_S = self.layer_weights.softmax(dim=0)
        mixed_B2d = torch.einsum("s,bskd->bkd", weights_S, self.standardise(states_BS2d))
        low_Br = self.drop_low(self.down(self.drop_states(mixed_B2d.flatten(1), draw_B)), draw_B)
        return self.guide(low_Br), self.text(low_Br)


class FramesEncoder(nn.Module):
    """One modality: its LSTM's last state and its summary → its vector; zero where the modality is absent.

    Args:
        width: D.
        hidden: H.
        mixed: h.
        dropout: Share of the summary's numbers that training leaves out.
        place: Tells its dropouts from others.
    """

    def __init__(self, width: int, hidden: int, mixed: int, dropout: float, place: int) -> None:
        super().__init__()
        self.width = width
        self.sequence = ModalityEncoder(width, hidden, mixed)
        self.standardise = Standardise(STATISTICS * width)
        self.summary = nn.Linear(STATISTICS * width, mixed, bias=False)
        self.drop_sequence, self.drop_summary = SampleDropout(dropout, place), SampleDropout(dropout, place + 1)

    def forward(self, frames_BLD: Tensor, lengths_B: Tensor, summary_BS: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B, L, D), (B,), (B, 4 D) → (B, h)."""
        present_B1 = (lengths_B > 0)[:, None].to(frames_BLD.device)
        summary_Bh = self.summary(self.drop_summary(self.standardise(summary_BS), draw_B))
        return self.drop_sequence(self.sequence(frames_BLD, lengths_B), draw_B) + summary_Bh * present_B1


class OpinionHead(nn.Module):
    """The mixture → log-probabilities over the labels: logits of classes, or a bell over the grid of intensities.

    Args:
        mixed: h.
        classes: K of classes; 0 for intensities.
        values: The K intensities; empty for classes.
        dropout: Share of the mixture that training leaves out.
    """

    values: Tensor | None
    """(K,)."""

    def __init__(self, mixed: int, classes: int, values: tuple[float, ...], dropout: float) -> None:
        super().__init__()
        self.drop = SampleDropout(dropout, 7)
        self.out = nn.Linear(mixed, classes or 2)
        nn.init.zeros_(self.out.weight)  # no opinion before training
        nn.init.zeros_(self.out.bias)
        self.register_buffer("values", None if classes else torch.tensor(values))

    def forward(self, mixture_Bh: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B, h) → (B, K).

        For intensities the two outputs are the bell's centre and the logarithm of its width, both in half ranges: the
        log-density of a normal distribution at every grid value, normalised over them.
        """
        out = self.out(self.drop(mixture_Bh, draw_B))
        if self.values is None:
            return F.log_softmax(out, dim=-1)
        low, high = self.values[0], self.values[-1]
        half = (high - low) / 2
        centre_B1 = (low + high) / 2 + half * out[:, :1]
        width_B1 = half * (out[:, 1:] - math.log(2)).exp().clamp(min=0.02)
        return F.log_softmax(-0.5 * ((self.values - centre_B1) / width_B1) ** 2, dim=-1)


class MSEStatesAdapter(OpinionatedAdapter):
    """Audio, vision and the LLM's states of the text → pseudo tokens and an opinion.

    Args:
        spec: Sizes.
    """

    def __init__(self, spec: AdapterSpec) -> None:
        super().__init__()
        mixed, dropout = spec.hidden, spec.dropout
        self.audio_dim, self.vision_dim, self.pseudo_tokens = spec.audio_dim, spec.vision_dim, spec.pseudo_tokens
        self.states = StatesReader(spec.state_layers, spec.text_dim, mixed, dropout)
        self.audio_encoder = _encoder(spec.audio_dim, spec.audio_hidden, mixed, dropout, place=3)
        self.vision_encoder = _encoder(spec.vision_dim, spec.vision_hidden, mixed, dropout, place=5)
        self.opinion_head = OpinionHead(mixed, spec.classes, spec.values, dropout)
        self.multi_scale_fusion = MultiScaleFusion(mixed, spec.text_dim)
        self.drop = SampleDropout(dropout, 8)
        self.projector = PseudoTokenProjector(mixed, spec.text_dim, spec.pseudo_tokens)
        self.gain = nn.Parameter(torch.tensor(spec.text_scale))

    def fit(self, batches: Iterable[Evidence]) -> None:
        """Take the train split's statistics; see `OpinionatedAdapter.fit`."""
        states, audio, vision = Moments(), Moments(), Moments()
        for evidence in batches:
            states.add(evidence.text_states)
            if evidence.audio_summary is not None and evidence.audio_lengths is not None:
                audio.add(evidence.audio_summary[evidence.audio_lengths > 0])
            if evidence.vision_summary is not None and evidence.vision_lengths is not None:
                vision.add(evidence.vision_summary[evidence.vision_lengths > 0])
        self.states.standardise.fit(states)
        for encoder, moments in ((self.audio_encoder, audio), (self.vision_encoder, vision)):
            if encoder is not None and moments.count:
                encoder.standardise.fit(moments)

    def read(self, evidence: Evidence) -> Reading:
        """Mix the evidence; see `OpinionatedAdapter.read`."""
        draw_B = evidence.draw
        guide_Bh, mixture_Bh = self.states(evidence.text_states, draw_B)
        for encoder, frames, lengths, summary in (
            (self.audio_encoder, evidence.audio, evidence.audio_lengths, evidence.audio_summary),
            (self.vision_encoder, evidence.vision, evidence.vision_lengths, evidence.vision_summary),
        ):
            if encoder is not None:
                mixture_Bh = mixture_Bh + encoder(frames, lengths, summary, draw_B) * guide_Bh
        mixture_Bh = F.layer_norm(mixture_Bh, mixture_Bh.shape[-1:])
        return Reading(mixture_Bh, self.opinion_head(mixture_Bh, draw_B), draw_B)

    def pseudo(self, reading: Reading) -> Tensor:
        """Pseudo tokens of unit RMS times the learned gain, which starts at the size of the LLM's embeddings."""
        tokens_BPd = self.projector(self.drop(self.multi_scale_fusion(reading.mixture), reading.draw))
        return F.rms_norm(tokens_BPd, tokens_BPd.shape[-1:], eps=1e-6) * self.gain


def _encoder(width: int, hidden: int, mixed: int, dropout: float, place: int) -> FramesEncoder | None:
    """None for data without the modality."""
    return FramesEncoder(width, hidden, mixed, dropout, place) if width else None


def make_mse_states(spec: AdapterSpec) -> MSEStatesAdapter:
    """The adapter of a spec, with fresh weights."""
    return MSEStatesAdapter(spec)
