"""Cached samples → batches: the typed Batch, its Collator, and the order of an epoch (by length; the seed decides it).

Shapes: B batch, T longest text of the batch in tokens, L its longest sequence of frames, D features of a frame, S
layers whose hidden states are read, d their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from msekit.adapters.sizes import STATISTICS
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.catalogue import MODALITIES

if TYPE_CHECKING:
    from msekit.data.batches.kept_frames import KeptFrames
    from msekit.data.samples import Samples

# batches whose samples are sorted by length together: large enough to save padding, small enough to shuffle
_BUCKET_BATCHES = 50
_AT_ONCE = 1 << 18  # numbers whose statistics are taken together; several copies of them are made


@dataclass
class Batch:
    """What one step reads. Padding is on the right and zero; a length of 0 marks an absent modality."""

    index: Tensor
    """(B,) int64, position of the sample in its split."""
    text_ids: Tensor
    """(B, T) int64."""
    text_lengths: Tensor
    """(B,) int64."""
    audio: Tensor | None
    """(B, L, D) float32; None where the data set has no audio."""
    audio_lengths: Tensor | None
    """(B,) int64."""
    vision: Tensor | None
    """(B, L, D) float32; None where the data set has no vision."""
    vision_lengths: Tensor | None
    """(B,) int64."""
    label: Tensor
    """(B,) int64, position of the true label in the LabelSpace; of several targets (B, Q), -1 where a question is not
    answered."""
    weight: Tensor
    """(B,) float32; 0 for a filler sample that must not count."""
    context_lengths: Tensor | None = None
    """(B,) int64, how many of a text's first tokens are earlier utterances of its dialogue; None for none."""
    audio_summary: Tensor | None = None
    """(B, 7 D) float32 statistics over the frames of the audio; None for an adapter that does not read them."""
    vision_summary: Tensor | None = None
    """Likewise of the vision."""
    text_states: Tensor | None = None
    """(B, S, 2, d) float32, the frozen LLM's own hidden states of each text at S layers: of its last token, and their
    mean over the text and the cue. None where they are not asked for."""
    draw: Tensor | None = None
    """(B,) int64, what decides a sample's dropout in this epoch; None outside of training."""

    @property
    def text_mask(self) -> Tensor:
        """(B, T) int64, 1 at the tokens of the utterance itself: what guides the adapter."""
        steps_T = torch.arange(self.text_ids.shape[1], device=self.text_ids.device)[None]
        own_BT = steps_T < self.text_lengths[:, None]
        if self.context_lengths is not None:
            own_BT &= steps_T >= self.context_lengths[:, None]
        return own_BT.long()

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device. A GPU copies pinned memory while the program goes on."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned_for(self, device: torch.device) -> Batch:
        """The same batch in memory that a GPU copies from by itself (pinned); what is on the GPU stays there."""
        pinned = lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory()  # noqa: E731
        return self._each(pinned) if device.type == "cuda" else self

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{k: change(v) for k, v in tensors.items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on features in training: the same for a seed, epoch and sample, whatever else is in the batch."""

    deviation: float
    seed: int
    epoch: int

    def add(self, frames_BLD: Tensor, lengths_B: Tensor, indices: Sequence[int], modality: int) -> None:
        """Add noise in place, to every sample's real frames."""
        whole_BLD, deviation = frames_BLD.numpy(), np.float32(self.deviation)
        for row, (index, length) in enumerate(zip(indices, lengths_B.tolist(), strict=True)):
            generator = np.random.default_rng((self.seed, self.epoch, index, modality))
            noise_LD = generator.standard_normal((length, whole_BLD.shape[2]), dtype=np.float32)
            whole_BLD[row, :length] += deviation * noise_LD


@dataclass(frozen=True)
class ModalityDropout:
    """Withholds modalities in training: the same ones for a seed, epoch and sample, whatever else is in the batch."""

    probability: float
    seed: int
    epoch: int

    def drops(self, index: int, modality: int) -> bool:
        """Whether a sample goes without a modality in this epoch."""
        generator = np.random.default_rng((self.seed, self.epoch, index, len(MODALITIES) + modality))  # not the noise's
        return bool(generator.random() < self.probability)


@dataclass(frozen=True, eq=False)
class Collator:
    """Positions in a split → Batch. It never changes, so that a thread may read it; an epoch's noise makes another."""

    split: Samples
    """The samples."""
    text_ids: Sequence[Sequence[int]]
    """Each sample's text in tokens, already cut to the limit."""
    labels: np.ndarray
    """(N,) position of each sample's label in the LabelSpace; of several targets (N, Q)."""
    audio: Preprocessor | None = None
    """The audio's way to the adapter; None to withhold the audio from all."""
    vision: Preprocessor | None = None
    """Likewise."""
    context: np.ndarray | None = None
    """(N,) tokens at the beginning of each text that are earlier utterances, not its own; None for none."""
    noise: Noise | None = None
    dropout: ModalityDropout | None = None
    withheld: frozenset[str] = frozenset()
    """Modalities that every sample goes without, as where it lacks them itself."""
    frames_of: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Modality → (N,) the sample whose frames each sample gets; without an entry, its own."""
    kept: KeptFrames | None = None
    """Frames that earlier batches made; None to make them anew for every batch."""
    summaries: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Modality → (N, 7 D) every sample's summary; empty where none is read."""
    states: Callable[[Sequence[int]], Tensor] | None = None
    """Positions → hidden states of their texts, (B, S, 2, d); None where none are read."""
    draws: Callable[[Tensor], Tensor] | None = None
    """Positions → what decides their dropout; None outside of training."""

    def summarised(self) -> Collator:
        """One that gives summaries of the frames too."""
        ways = {"audio": self.audio, "vision": self.vision}
        tables = {
            name: _all_summaries(way, getattr(self.split, name), getattr(self.split, f"{name}_lengths"))
            for name, way in ways.items()
            if way is not None and len(self.split)
        }
        return replace(self, summaries=tables)

    def shuffled(self, seed: int, modalities: Sequence[str] = MODALITIES) -> Collator:
        """One that gives every sample the frames of another: what it scores is not heard or seen."""
        generator = np.random.default_rng(seed)
        return replace(self, frames_of={name: _derangement(len(self.split), generator) for name in modalities})

    def text_shuffled(self, seed: int) -> Collator:
        """One that gives every sample the text of another, with its context and its hidden states."""
        order, own = _derangement(len(self.split), np.random.default_rng(seed)), self.states
        return replace(
            self,
            text_ids=[self.text_ids[place] for place in order],
            context=None if self.context is None else self.context[order],
            states=None if own is None else lambda indices: own([int(order[index]) for index in indices]),
        )

    @property
    def context_lengths(self) -> np.ndarray:
        """(N,) tokens of earlier utterances."""
        return np.zeros(len(self.split), dtype=np.int64) if self.context is None else self.context

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) text tokens and (N,) frames of the longest modality, for bucketing."""
        tokens = np.array([len(ids) for ids in self.text_ids])
        return tokens, np.maximum(self.split.audio_lengths, self.split.vision_lengths)

    def __call__(self, indices: Sequence[int], counted: bool = True) -> Batch:
        """Collate the samples at these positions; `counted=False` makes fillers of weight 0."""
        texts = [torch.tensor(self.text_ids[i], dtype=torch.long) for i in indices]
        audio = self.audio and _pad([self._frames(0, self.audio, i) for i in indices])
        vision = self.vision and _pad([self._frames(1, self.vision, i) for i in indices])
        if self.noise is not None:
            for modality, padded in enumerate((audio, vision)):
                if padded:
                    self.noise.add(*padded, indices, modality)
        return Batch(
            index=torch.tensor(indices, dtype=torch.long),
            text_ids=torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
            text_lengths=torch.tensor([len(text) for text in texts]),
            audio=audio[0] if audio else None,
            audio_lengths=audio[1] if audio else None,
            vision=vision[0] if vision else None,
            vision_lengths=vision[1] if vision else None,
            label=torch.from_numpy(self.labels[list(indices)]).long(),
            weight=torch.full((len(indices),), float(counted)),
            context_lengths=torch.from_numpy(self.context_lengths[list(indices)]),
            audio_summary=self._summaries(0, indices),
            vision_summary=self._summaries(1, indices),
            text_states=None if self.states is None else self.states(indices),
            draw=None if self.draws is None else self.draws(torch.tensor(indices, dtype=torch.long)),
        )

    def _summaries(self, modality: int, indices: Sequence[int]) -> Tensor | None:
        """(B, 7 D); zeros for a sample from which the modality is withheld."""
        name = MODALITIES[modality]
        if name not in self.summaries:
            return None
        table_NS = self.summaries[name]
        rows = [
            np.zeros_like(table_NS[0]) if self._withholds(modality, i) else table_NS[self._source(name, i)]
            for i in indices
        ]
        return torch.from_numpy(np.stack(rows))

    def _frames(self, modality: int, preprocess: Preprocessor, index: int) -> np.ndarray:
        """(L, D) what the adapter gets of a modality of the sample at `index`; no frames where it is withheld."""
        name = MODALITIES[modality]
        source = self._source(name, index)
        if self.kept is None:
            frames_LD = preprocess(getattr(self.split, name)(source))
        else:
            frames_LD = self.kept.get(self.split, name, preprocess, source)
        return frames_LD[:0] if self._withholds(modality, index) else frames_LD

    def _source(self, name: str, index: int) -> int:
        """The sample whose frames the sample at `index` gets."""
        return int(self.frames_of[name][index]) if name in self.frames_of else index

    def _withholds(self, modality: int, index: int) -> bool:
        return MODALITIES[modality] in self.withheld or (
            self.dropout is not None and self.dropout.drops(index, modality)
        )


def _all_summaries(way: Preprocessor, frames_of: Callable[[int], np.ndarray], lengths_N: np.ndarray) -> np.ndarray:
    """(N, 7 D), of samples of one length together: one by one, NumPy's calls take longer than its sums."""
    width = frames_of(0).shape[1]
    table_NS = np.empty((len(lengths_N), STATISTICS * width), np.float32)
    for length in np.unique(lengths_N):
        places = np.flatnonzero(lengths_N == length)
        for some in np.array_split(places, math.ceil(len(places) * length * width / _AT_ONCE) or 1):
            table_NS[some] = way.summaries(np.stack([frames_of(int(place)) for place in some]))
    return table_NS


def _pad(sequences: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths_B = torch.tensor([len(frames) for frames in sequences])
    padded_BLD = torch.zeros(len(sequences), max(int(lengths_B.max()), 1), sequences[0].shape[1])
    for row, frames in enumerate(sequences):
        padded_BLD[row, : len(frames)] = torch.from_numpy(frames)
    return padded_BLD, lengths_B


def _derangement(size: int, generator: np.random.Generator) -> np.ndarray:
    """A random permutation without fixed points (one cycle through all), for sizes above 1."""
    order = generator.permutation(size)
    shuffled = np.empty(size, dtype=np.int64)
    shuffled[order] = np.roll(order, 1)
    return shuffled


def global_batches(tokens: np.ndarray, frames: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The order of one epoch, every sample once, samples of like length together.

    The order depends on the seed and the epoch alone, not on the number of processes, so a run can be resumed or spread
    over processes. The seed decides which samples share a batch. The epoch alone decides at which step which lengths
    come: the batches of several seeds then have like lengths at every step, and joining them pads next to nothing.

    Args:
        tokens: (N,) text tokens of each sample, the first key of the sort.
        frames: (N,) frames of each sample, the second key.
        batch_size: Samples of a global batch; the last one may be smaller.
        seed: The run's seed.
        epoch: Number of the epoch.

    Returns:
        Lists of positions.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(tokens))
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * _BUCKET_BATCHES):
        bucket = order[start : start + batch_size * _BUCKET_BATCHES]
        bucket = bucket[np.lexsort((frames[bucket], tokens[bucket]))]
        batches += [bucket[i : i + batch_size].tolist() for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in np.random.default_rng(epoch).permutation(len(batches))]


def micro_batches(batch: list[int], rank: int, world: int, accumulation: int) -> Iterator[tuple[list[int], bool]]:
    """One process's share of a global batch, in `accumulation` parts.

    A process whose part is empty must still take part in the collective operations, so it gets one filler sample that
    does not count.

    Yields:
        Positions, and whether they count.
    """
    share = batch[rank::world]
    for part in range(accumulation):
        indices = share[part::accumulation]
        yield (indices, True) if indices else (batch[:1], False)


def evaluation_batches(
    tokens: np.ndarray, frames: np.ndarray, batch_size: int, rank: int, world: int
) -> list[list[int]]:
    """One process's share of a split, sorted by length; every sample is in exactly one share."""
    order = np.lexsort((frames, tokens))[::-1][rank::world]  # longest first: a lack of memory shows at once
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
