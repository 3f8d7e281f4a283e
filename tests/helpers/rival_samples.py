"""Small made-up samples for the baselines: some lack a modality; dialogues of two speakers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from msekit.baselines.rival_batch import RivalBatch, Sizes

WIDTHS = {"audio": 6, "vision": 5}
CLASSES = Sizes(vocabulary=20, widths=WIDTHS, outputs=4, samples=9, speakers=2)
STATES = replace(CLASSES, vocabulary=0, text_width=7)
INTENSITY = replace(CLASSES, outputs=1, span=(-3.0, 3.0))
TEXT_LENGTHS, AUDIO_LENGTHS, VISION_LENGTHS = [4, 2, 1, 3, 4, 2], [7, 3, 0, 1, 5, 2], [2, 1, 2, 0, 3, 1]
DIALOGUES, SPEAKERS = [0, 0, 0, 1, 1, 0], [1, 2, 1, 2, 0, 2]


def padded(lengths: list[int], width: int, generator: torch.Generator) -> torch.Tensor:
    x = torch.randn(len(lengths), max(lengths), width, generator=generator, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    return x


def batch(intensity: bool = False) -> RivalBatch:
    """Six samples in two dialogues; the third has no audio, the fourth no vision."""
    generator = torch.Generator().manual_seed(0)
    size = len(TEXT_LENGTHS)
    ids = torch.randint(2, 20, (size, max(TEXT_LENGTHS)), generator=generator)
    for row, length in enumerate(TEXT_LENGTHS):
        ids[row, length:] = 0
    labels = [-1.2, 0.4, 2.0, 0.0, -0.6, 1.0] if intensity else [0, 3, 1, 2, 1, 0]
    return RivalBatch(
        index=torch.arange(size),
        text_ids=ids,
        text_lengths=torch.tensor(TEXT_LENGTHS),
        audio=padded(AUDIO_LENGTHS, 6, generator),
        audio_lengths=torch.tensor(AUDIO_LENGTHS),
        vision=padded(VISION_LENGTHS, 5, generator),
        vision_lengths=torch.tensor(VISION_LENGTHS),
        truth=torch.tensor(labels, dtype=torch.float64),
        tokens=padded(TEXT_LENGTHS, 7, generator),
        sentence=torch.randn(size, 7, generator=generator, dtype=torch.float64),
        dialogue=torch.tensor(DIALOGUES),
        turn=torch.arange(size),
        speaker=torch.tensor(SPEAKERS),
        party=torch.tensor(SPEAKERS),
    )


def some(given: RivalBatch, places: list[int], padding: int = 0) -> RivalBatch:
    """Some of the samples, with as much padding of nines behind every sequence as is asked for."""
    from dataclasses import fields

    parts = {part.name: getattr(given, part.name) for part in fields(given)}
    chosen = {name: x[places] for name, x in parts.items() if isinstance(x, torch.Tensor)}
    for name in ("audio", "vision", "tokens", "text_ids"):
        x = chosen[name]
        more = torch.full((len(places), padding, *x.shape[2:]), 9, dtype=x.dtype)
        chosen[name] = torch.cat([x, more], dim=1)
    return replace(given, **chosen)


def plain(given: RivalBatch, place: int) -> dict[str, np.ndarray]:
    """One sample's own steps: words, states of tokens and of the text, audio and vision."""
    return {
        "words": given.text_ids[place, : int(given.text_lengths[place])].numpy(),
        "tokens": given.tokens[place, : int(given.text_lengths[place])].numpy(),
        "sentence": given.sentence[place].numpy(),
        "audio": given.audio[place, : int(given.audio_lengths[place])].numpy(),
        "vision": given.vision[place, : int(given.vision_lengths[place])].numpy(),
    }
