"""`mse-states`: the MSE-Adapter, guided by what the frozen LLM itself makes of the text, with an opinion of its own.

The paper's Text-Guide-Mixer is guided by the mean of the text's *embeddings*, a bag of words. Here the guide comes from
*hidden states* of the same frozen LLM, read once per text (`backbones/hidden_states.py`). Beside the paper's parts:

- StatesReader: the states of several layers → the guide, and a text path into the mixture, so that a sample without
  audio or vision still gets pseudo tokens of its own.
- FramesEncoder: beside the LSTM's last state, statistics over the frames. SummaryEncoder: of wide frames, which are an
  encoder's states and know their neighbours already, the statistics alone.
- OpinionHead: text, audio and vision → log-probabilities over the labels, which are multiplied with the LLM's
  (`model/product.py`).
- Pseudo tokens at the size of the LLM's own embeddings, and dropout.

Up to the opinion everything is there M times, as members of an ensemble with other first weights and other dropout:
few samples leave much to chance, and a mean over members leaves less (`benchmarks/accuracy/RESULTS.md`).

Shapes: B batch, M members, S layers read, L frames of a modality, D features of a frame, d text width of the backbone,
H hidden size of an LSTM, r rank of a member's first projection, h = 256 width of the mixture, P pseudo tokens, K
labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Evidence, OpinionatedAdapter, Reading
from msekit.adapters.mse import ModalityEncoder, MultiScaleFusion, PseudoTokenProjector
from msekit.adapters.sample_dropout import SampleDropout, SampleNoise
from msekit.adapters.sizes import (
    MEMBERS,
    STATISTICS,
    WIDE,
    WIDE_RANK,
    AdapterSpec,
    opinion_width,
    states_rank,
    summary_rank,
)
from msekit.adapters.standardise import Moments, Standardise

_OF_FRAMES = 0.6  # share of the dropout that summaries and sequences get


class MemberLinear(nn.Module):
    """A linear layer for each of the members.

    Args:
        inputs: Numbers that a member reads.
        outputs: Numbers that it gives.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(MEMBERS, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(MEMBERS, outputs).uniform_(-bound, bound))

    def forward(self, rows_BMi: Tensor) -> Tensor:
        """(B, M, inputs) → (B, M, outputs)."""
        return torch.einsum("bmi,mio->bmo", rows_BMi, self.weight) + self.bias


class MemberDropout(nn.Module):
    """SampleDropout, with other choices for every member; arguments as there."""

    def __init__(self, share: float, place: int) -> None:
        super().__init__()
        self.drop = SampleDropout(share, place)

    def forward(self, rows: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B, N) that all members read, or (B, M, N) → (B, M, N)."""
        rows_BMN = rows[:, None].expand(-1, MEMBERS, -1) if rows.ndim == 2 else rows
        return self.drop(rows_BMN.flatten(1), draw_B).view(rows_BMN.shape)


class StatesReader(nn.Module):
    """Hidden states of the text → the text's vectors and the mixer's guide.

    Args:
        layers: S.
        text_dim: d.
        mixed: h.
        dropout: Share of the states' numbers that training leaves out.
    """

    def __init__(self, layers: int, text_dim: int, mixed: int, dropout: float) -> None:
        super().__init__()
        rank = states_rank(text_dim, layers)
        self.standardise = Standardise(layers, 2, text_dim)
        self.drop = MemberDropout(dropout, 1)
        self.down = MemberLinear(layers * 2 * text_dim, rank)
        self.text = MemberLinear(rank, mixed)
        self.guide = nn.Linear(MEMBERS * rank, mixed)

    def forward(self, states_BS2d: Tensor, draw_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, S, 2, d) → the text's vectors (B, M, h) and the guide (B, h)."""
        rows_BN = self.standardise(unit(states_BS2d)).flatten(1)
        low_BMr = F.gelu(self.down(self.drop(rows_BN, draw_B)))
        text_BMh = self.text(low_BMr)
        return F.layer_norm(text_BMh, text_BMh.shape[-1:]), self.guide(low_BMr.flatten(1))


def unit(states_BS2d: Tensor) -> Tensor:
    """Every vector over its root mean square, as the LLM's own layers read it."""
    return F.rms_norm(states_BS2d.float(), states_BS2d.shape[-1:], eps=1e-6)


class FramesEncoder(nn.Module):
    """One modality: the summary of its frames and its LSTM's last state → its vectors; zero where it is absent.

    Args:
        width: D.
        hidden: H.
        mixed: h.
        dropout: Share of the summary's and the state's numbers that training leaves out.
        noise: Deviation of the noise that training adds to the standardised summary.
        place: Tells its draws from others.
    """

    def __init__(self, width: int, hidden: int, mixed: int, dropout: float, noise: float, place: int) -> None:
        super().__init__()
        rank = summary_rank(width)
        self.standardise = Standardise(STATISTICS * width)
        self.noise, self.drop = SampleNoise(noise, place), MemberDropout(dropout, place + 1)
        self.down = MemberLinear(STATISTICS * width, rank)
        self.up = MemberLinear(rank, mixed)
        self.sequence = ModalityEncoder(width, hidden, mixed)
        self.drop_sequence = MemberDropout(dropout, place + 2)

    def forward(self, frames_BLD: Tensor, lengths_B: Tensor, summary_BS: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B, L, D), (B,), (B, 7 D) → (B, M, h)."""
        summary_BS = self.noise(self.standardise(summary_BS), draw_B)
        vectors_BMh = self.up(self.down(self.drop(summary_BS, draw_B)))
        vectors_BMh = vectors_BMh + self.drop_sequence(self.sequence(frames_BLD, lengths_B), draw_B)
        return vectors_BMh * (lengths_B > 0)[:, None, None].to(vectors_BMh.device)


class SummaryEncoder(nn.Module):
    """One modality of wide frames: their summary alone → its vectors; zero where it is absent.

    Members share the projection of the summary and differ in what they leave out of it. Noise on it and a narrower
    projection cost accuracy, and an LSTM beside it brings none (`benchmarks/accuracy/RESULTS.md`).

    Args:
        width: D.
        mixed: h.
        dropout: Share of the summary's numbers that training leaves out.
        place: Tells its draws from others.
    """

    def __init__(self, width: int, mixed: int, dropout: float, place: int) -> None:
        super().__init__()
        self.standardise = Standardise(STATISTICS * width)
        self.drop = MemberDropout(dropout, place + 1)
        self.down = nn.Linear(STATISTICS * width, WIDE_RANK)
        self.up = MemberLinear(WIDE_RANK, mixed)

    def forward(self, _: Tensor, lengths_B: Tensor, summary_BS: Tensor, draw_B: Tensor | None) -> Tensor:
        """The frames, which are not read, (B,), (B, 7 D) → (B, M, h)."""
        vectors_BMh = self.up(self.down(self.drop(self.standardise(summary_BS), draw_B)))
        return vectors_BMh * (lengths_B > 0)[:, None, None].to(vectors_BMh.device)


class OpinionHead(nn.Module):
    """The vectors of text, audio and vision → log-probabilities over the labels.

    Every vector has a linear map of its own, and their outputs are added: an expert for each, the product of which is
    a member's opinion. For classes the outputs are logits. For intensities they are the centre and the width of a bell
    over the grid of values. Each of several questions has outputs of its own.

    Args:
        mixed: h.
        modalities: Names of the vectors.
        opinions: For every question K of classes, 0 for intensities; and the K intensities, none for classes.
        dropout: Share of a vector that training leaves out.
        place: Tells its dropouts from others.
    """

    values: Tensor | None
    """The intensities of all questions; None where all are of classes."""

    def __init__(
        self,
        mixed: int,
        modalities: list[str],
        opinions: tuple[tuple[int, tuple[float, ...]], ...],
        dropout: float,
        place: int,
    ) -> None:
        super().__init__()
        self.drops = nn.ModuleDict({name: MemberDropout(dropout, place + n) for n, name in enumerate(modalities)})
        self.experts = nn.ModuleDict({name: MemberLinear(mixed, opinion_width(opinions)) for name in modalities})
        for parameter in self.experts.parameters():  # no opinion before training
            nn.init.zeros_(parameter)
        self.sizes = [(classes, len(values)) for classes, values in opinions]
        values = [value for _, values in opinions for value in values]
        self.register_buffer("values", torch.tensor(values) if values else None)

    def forward(self, vectors: dict[str, Tensor], draw_B: Tensor | None) -> Tensor:
        """Vectors by name, (B, M, h) each → every member's opinion, (B, M, K); K of all questions."""
        out_BMo = torch.stack(
            [self.experts[name](self.drops[name](vector, draw_B)) for name, vector in vectors.items()]
        ).sum(dim=0)
        outputs = out_BMo.split([classes or 2 for classes, _ in self.sizes], dim=-1)
        values = [None] * len(outputs)
        if self.values is not None:
            values = self.values.split([count for _, count in self.sizes])
        opinions = [_opinion(*one) for one in zip(outputs, values, strict=True)]
        return opinions[0] if len(opinions) == 1 else torch.cat(opinions, dim=-1)


def _opinion(out_BMo: Tensor, values_K: Tensor | None) -> Tensor:
    """A question's outputs → its log-probabilities, (B, M, K)."""
    if values_K is None or not len(values_K):
        return F.log_softmax(out_BMo, dim=-1)
    low, high = values_K[0], values_K[-1]
    half = (high - low) / 2
    centre_BM1 = (low + high) / 2 + 2 / 3 * half * out_BMo[..., :1]
    width_BM1 = half / 3 * (F.softplus(out_BMo[..., 1:] + 0.55) + 0.1)
    return F.log_softmax(-0.5 * ((values_K - centre_BM1) / width_BM1) ** 2, dim=-1)


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
        sizes = {"audio": (spec.audio_dim, spec.audio_hidden), "vision": (spec.vision_dim, spec.vision_hidden)}
        self.encoders = nn.ModuleDict()
        for place, (name, (width, hidden)) in zip((10, 20), sizes.items(), strict=True):
            if width > WIDE:
                self.encoders[name] = SummaryEncoder(width, mixed, _OF_FRAMES * dropout, place)
            elif width:
                self.encoders[name] = FramesEncoder(width, hidden, mixed, _OF_FRAMES * dropout, spec.noise, place)
        self.opinion_head = OpinionHead(mixed, ["text", *self.encoders], spec.opinions, dropout, place=30)
        self.multi_scale_fusion = MultiScaleFusion(mixed, spec.text_dim)
        self.drop = SampleDropout(dropout, 40)
        self.projector = PseudoTokenProjector(mixed, spec.text_dim, spec.pseudo_tokens)
        self.gain = nn.Parameter(torch.full((1,), spec.text_scale))  # ZeRO takes no parameter without a dimension
        self.register_buffer("llm_weight", torch.ones(len(spec.opinions)))

    def fit(self, batches: Iterable[Evidence]) -> None:
        """Take the train split's statistics; see `OpinionatedAdapter.fit`."""
        states, frames = Moments(), {name: Moments() for name in self.encoders}
        for evidence in batches:
            states.add(unit(evidence.text_states))
            for name, moments in frames.items():
                _, lengths_B, summary_BS = evidence.of(name)
                moments.add(summary_BS[lengths_B > 0])
        self.states.standardise.fit(states)
        for name, moments in frames.items():
            if moments.count:
                self._encoder(name).standardise.fit(moments)

    def _encoder(self, name: str) -> FramesEncoder | SummaryEncoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, FramesEncoder | SummaryEncoder)
        return encoder

    def read(self, evidence: Evidence) -> Reading:
        """Mix the evidence; see `OpinionatedAdapter.read`."""
        draw_B = evidence.draw
        text_BMh, guide_Bh = self.states(evidence.text_states, draw_B)
        vectors = {"text": text_BMh}
        # the guide stays in the graph where there is nothing to guide: DDP waits for its gradient
        mixture_Bh = text_BMh.mean(dim=1) + 0 * guide_Bh
        for name in self.encoders:
            vectors[name] = self._encoder(name)(*evidence.of(name), draw_B)
            # the Text-Guide-Mixer's Hadamard product, and the vector as it is
            mixture_Bh = mixture_Bh + vectors[name].mean(dim=1) * (1 + guide_Bh)
        mixture_Bh = F.layer_norm(mixture_Bh, mixture_Bh.shape[-1:])
        return Reading(mixture_Bh, self.opinion_head(vectors, draw_B), draw_B)

    def opinion_parameters(self) -> Iterator[nn.Parameter]:
        """See `OpinionatedAdapter.opinion_parameters`."""
        for part in (self.states.down, self.states.text, self.encoders, self.opinion_head):
            yield from part.parameters()

    def pseudo(self, reading: Reading) -> Tensor:
        """Pseudo tokens of unit RMS times the learned gain, which starts at the size of the LLM's embeddings."""
        tokens_BPd = self.projector(self.drop(self.multi_scale_fusion(reading.mixture), reading.draw))
        return F.rms_norm(tokens_BPd, tokens_BPd.shape[-1:], eps=1e-6) * self.gain


def make_mse_states(spec: AdapterSpec) -> MSEStatesAdapter:
    """The adapter of a spec, with fresh weights."""
    return MSEStatesAdapter(spec)
