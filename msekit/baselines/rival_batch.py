"""RivalBatch: what a baseline reads of some samples, and Sizes: what it is built from.

Shapes: B batch, T tokens of a text, L frames, D features of a frame, d width of a text state.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from msekit.data.batches.batch import Batch

TEXT, AUDIO, VISION = "text", "audio", "vision"


@dataclass(frozen=True)
class Sizes:
    """What a baseline's layers are sized by."""

    vocabulary: int
    """Words, 0 for padding and 1 for unknown ones; what is learned where the text is words."""
    widths: dict[str, int]
    """Features per frame of each modality that the set has, audio first."""
    outputs: int
    """O: classes, or 1 for an intensity."""
    text_width: int | None = None
    """d, where the text is frozen states; None where it is words."""
    samples: int = 0
    """Of the train split, for a memory of them."""
    speakers: int = 0
    """Of the train split; they are numbered from 1."""
    span: tuple[float, float] | None = None
    """Lowest and highest intensity; None where classes are told apart."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Text, and those of audio and vision that the set has."""
        return (TEXT, *self.widths)


@dataclass
class RivalBatch:
    """What one step reads. Padding is on the right and zero; a length of 0 marks an absent modality."""

    index: Tensor
    """(B,) int64, position of the sample in its split."""
    text_ids: Tensor
    """(B, T) int64 words, or the LLM's tokens where the text is states."""
    text_lengths: Tensor
    """(B,) int64."""
    audio: Tensor | None
    """(B, L, D) float32; None where the set has no audio."""
    audio_lengths: Tensor | None
    vision: Tensor | None
    vision_lengths: Tensor | None
    truth: Tensor
    """(B,) float32: class numbers or intensities."""
    truths: Tensor | None = None
    """(B, 3) float32, labels of text, audio and vision by themselves, NaN where unknown; None where there are none."""
    tokens: Tensor | None = None
    """(B, T, d) float32, frozen states of the text's tokens; None where they are not read."""
    sentence: Tensor | None = None
    """(B, d) float32, a frozen state of the whole text; None where it is not read."""
    dialogue: Tensor | None = None
    """(B,) int64, number of the sample's dialogue; None for a baseline that reads samples one by one."""
    turn: Tensor | None = None
    """(B,) int64, place among the utterances of its split."""
    speaker: Tensor | None = None
    """(B,) int64, 0 for one who is not in the train split."""
    party: Tensor | None = None
    """(B,) int64, number of the speaker among those of its split: what tells the sides of a dialogue apart."""

    @classmethod
    def of(cls, batch: Batch, truth: Tensor) -> RivalBatch:
        """The part that every baseline reads."""
        return cls(
            batch.index,
            batch.text_ids,
            batch.text_lengths,
            batch.audio,
            batch.audio_lengths,
            batch.vision,
            batch.vision_lengths,
            truth,
        )

    @property
    def text_mask(self) -> Tensor:
        """(B, T) int64, 1 at the text's tokens."""
        return real_steps(self.text_lengths, self.text_ids.shape[1]).long()

    def frames(self, modality: str) -> tuple[Tensor, Tensor]:
        """(B, L, D) and (B,) lengths of a modality that the set has."""
        frames_BLD, lengths_B = getattr(self, modality), getattr(self, f"{modality}_lengths")
        assert frames_BLD is not None
        assert lengths_B is not None
        return frames_BLD, lengths_B

    def present(self, modality: str) -> Tensor:
        """(B,) bool: whether a sample has a modality; every sample has text."""
        return torch.ones_like(self.text_lengths).bool() if modality == TEXT else self.frames(modality)[1] > 0

    def truth_of(self, modality: str) -> Tensor:
        """(B,) the label of a modality by itself; the sample's where there is none."""
        if self.truths is None:
            return self.truth
        own_B = self.truths[:, (TEXT, AUDIO, VISION).index(modality)]
        return torch.where(own_B.isnan(), self.truth, own_B)

    def to(self, device: torch.device) -> RivalBatch:
        """The same batch on a device."""
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{name: x.to(device) for name, x in tensors.items() if isinstance(x, Tensor)})


def real_steps(lengths_B: Tensor, steps: int) -> Tensor:
    """(B, L) bool, True at a sequence's own steps."""
    return torch.arange(steps, device=lengths_B.device)[None] < lengths_B[:, None]
