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

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Evidence, OpinionatedAdapter, Reading
from msekit.adapters.mse import MultiScaleFusion, PseudoTokenProjector
from msekit.adapters.sample_dropout import SampleDropout
from msekit.adapters.sizes import STATISTICS, SUMMARY_RANK, AdapterSpec, states_rank

_FURTHEST = 6.0  # deviations; what lies further out is cut there


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
    """Hidden states of the text → a few numbers, from which the text's vector and the mixer's guide are made.

    Args:
        layers: S.
        text_dim: d.
        mixed: h.
        dropout: Share of the states' numbers, and of their projection's, that training leaves out.
    """

    def __init__(self, layers: int, text_dim: int, mixed: int, dropout: float) -> None:
        super().__init__()
        rank = states_rank(text_dim, layers)
        self.standardise = Standardise(layers, 2, text_dim)
        self.drop_states, self.drop_low = SampleDropout(dropout, 1), SampleDropout(dropout, 2)
        self.down = nn.Linear(layers * 2 * text_dim, rank)
        self.text = nn.Linear(rank, mixed)
        self.guide = nn.Linear(rank, mixed)

    def forward(self, states_BS2d: Tensor, draw_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, S, 2, d) → the text's vector and the guide, (B, h) each."""
        rows_BN = self.standardise(unit(states_BS2d)).flatten(1)
        low_Br = F.gelu(self.down(self.drop_states(rows_BN, draw_B)))
        return self.text(low_Br), self.guide(self.drop_low(low_Br, draw_B))


def unit(states_BS2d: Tensor) -> Tensor:
    """Every vector over its root mean square, as the LLM's own layers read it."""
    return F.rms_norm(states_BS2d.float(), states_BS2d.shape[-1:], eps=1e-6)


class FramesEncoder(nn.Module):
    """One modality: the summary of its frames → its vector; zero where the modality is absent.

    Args:
        width: D.
        mixed: h.
        dropout: Share of the summary's numbers that training leaves out.
        place: Tells its dropouts from others.
    """

    def __init__(self, width: int, mixed: int, dropout: float, place: int) -> None:
        super().__init__()
        self.standardise = Standardise(STATISTICS * width)
        self.drop = SampleDropout(dropout, place)
        self.down = nn.Linear(STATISTICS * width, SUMMARY_RANK)
        self.up = nn.Linear(SUMMARY_RANK, mixed)

    def forward(self, lengths_B: Tensor, summary_BS: Tensor, draw_B: Tensor | None) -> Tensor:
        """(B,), (B, 5 D) → (B, h)."""
        vector_Bh = self.up(self.down(self.drop(self.standardise(summary_BS), draw_B)))
        return vector_Bh * (lengths_B > 0)[:, None].to(vector_Bh.device)


class OpinionHead(nn.Module):
    """The vectors of text, audio and vision → log-probabilities over the labels.

    Every vector has a linear map of its own, and their outputs are added: an expert for each, the product of which is
    the opinion. For classes the outputs are logits. For intensities they are the centre and the width of a bell over
    the grid of values.

    Args:
        mixed: h.
        modalities: Names of the vectors.
        classes: K of classes; 0 for intensities.
        values: The K intensities; empty for classes.
        dropout: Share of a vector that training leaves out.
        place: Tells its dropouts from others.
    """

    values: Tensor | None
    """(K,)."""

    def __init__(
        self, mixed: int, modalities: list[str], classes: int, values: tuple[float, ...], dropout: float, place: int
    ) -> None:
        super().__init__()
        self.drops = nn.ModuleDict({name: SampleDropout(dropout, place + n) for n, name in enumerate(modalities)})
        self.experts = nn.ModuleDict({name: nn.Linear(mixed, classes or 2) for name in modalities})
        for parameter in self.experts.parameters():  # no opinion before training
            nn.init.zeros_(parameter)
        self.register_buffer("values", None if classes else torch.tensor(values))

    def forward(self, vectors: dict[str, Tensor], draw_B: Tensor | None) -> Tensor:
        """Vectors by name, (B, h) each → (B, K)."""
        out = sum(self.experts[name](self.drops[name](vector, draw_B)) for name, vector in vectors.items())
        if self.values is None:
            return F.log_softmax(out, dim=-1)
        low, high = self.values[0], self.values[-1]
        half = (high - low) / 2
        centre_B1 = (low + high) / 2 + 2 / 3 * half * out[:, :1]
        width_B1 = half / 3 * (F.softplus(out[:, 1:] + 0.55) + 0.1)
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
        widths = {"audio": spec.audio_dim, "vision": spec.vision_dim}
        self.encoders = nn.ModuleDict(
            {
                name: FramesEncoder(width, mixed, dropout, place=4 * number)
                for number, (name, width) in enumerate(widths.items(), start=1)
                if width
            }
        )
        self.opinion_head = OpinionHead(mixed, ["text", *self.encoders], spec.classes, spec.values, dropout, place=12)
        self.multi_scale_fusion = MultiScaleFusion(mixed, spec.text_dim)
        self.drop = SampleDropout(dropout, 16)
        self.projector = PseudoTokenProjector(mixed, spec.text_dim, spec.pseudo_tokens)
        self.gain = nn.Parameter(torch.tensor(spec.text_scale))

    def fit(self, batches: Iterable[Evidence]) -> None:
        """Take the train split's statistics; see `OpinionatedAdapter.fit`."""
        states, frames = Moments(), {name: Moments() for name in self.encoders}
        for evidence in batches:
            states.add(unit(evidence.text_states))
            for name, moments in frames.items():
                lengths_B, summary_BS = _of(evidence, name)
                moments.add(summary_BS[lengths_B > 0])
        self.states.standardise.fit(states)
        for name, moments in frames.items():
            if moments.count:
                self._encoder(name).standardise.fit(moments)

    def _encoder(self, name: str) -> FramesEncoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, FramesEncoder)
        return encoder

    def read(self, evidence: Evidence) -> Reading:
        """Mix the evidence; see `OpinionatedAdapter.read`."""
        draw_B = evidence.draw
        text_Bh, guide_Bh = self.states(evidence.text_states, draw_B)
        vectors = {"text": F.layer_norm(text_Bh, text_Bh.shape[-1:])}
        mixture_Bh = vectors["text"]
        for name in self.encoders:
            vectors[name] = self._encoder(name)(*_of(evidence, name), draw_B)
            mixture_Bh = mixture_Bh + vectors[name] * (1 + guide_Bh)  # the Text-Guide-Mixer, and the vector as it is
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


def _of(evidence: Evidence, name: str) -> tuple[Tensor, Tensor]:
    """Lengths (B,) and summaries (B, 5 D) of a modality."""
    lengths_B, summary_BS = getattr(evidence, f"{name}_lengths"), getattr(evidence, f"{name}_summary")
    assert lengths_B is not None
    assert summary_BS is not None
    return lengths_B, summary_BS


def make_mse_states(spec: AdapterSpec) -> MSEStatesAdapter:
    """The adapter of a spec, with fresh weights."""
    return MSEStatesAdapter(spec)
