"""An adapter, a baseline, an extractor and a metric that msekit does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.adapters.sizes import AdapterEntry, AdapterSpec
from msekit.baselines.blocks import Sentence
from msekit.baselines.catalogue import Entry
from msekit.baselines.models import HIDDEN
from msekit.baselines.rival_batch import RivalBatch, Sizes
from msekit.data.extractor import Extractor
from msekit.evaluation.metrics import Metric
from msekit.media.added_extractors import AddedExtractor


class LoudestAdapter(Adapter):
    """The largest value of each audio feature, one linear layer to the pseudo tokens."""

    vision_dim = 0

    def __init__(self, spec: AdapterSpec) -> None:
        super().__init__()
        self.audio_dim, self.pseudo_tokens, self.text_dim = spec.audio_dim, spec.pseudo_tokens, spec.text_dim
        self.audio = nn.Linear(spec.audio_dim, spec.pseudo_tokens * spec.text_dim, bias=False)

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Pseudo tokens, (B, P, d)."""
        if audio is None or audio_lengths is None or not audio.shape[1]:
            return text_embeddings.new_zeros(len(text_embeddings), self.pseudo_tokens, self.text_dim)
        lengths_B1 = audio_lengths.to(audio.device)[:, None]
        real_BL1 = (torch.arange(audio.shape[1], device=audio.device)[None] < lengths_B1)[..., None]
        loudest_BD = audio.masked_fill(~real_BL1, -torch.inf).amax(dim=1).masked_fill(lengths_B1 == 0, 0)
        return self.audio(loudest_BD).view(-1, self.pseudo_tokens, self.text_dim)


LOUDEST = AdapterEntry("loudness:LoudestAdapter", lambda spec: spec.audio_dim * spec.pseudo_tokens * spec.text_dim)


class Averages(nn.Module):
    """The mean word, one hidden layer; sizes and batch as msekit's own networks have them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.text = Sentence(sizes)
        self.hidden, self.output = nn.Linear(self.text.width, HIDDEN), nn.Linear(HIDDEN, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        return self.output(torch.relu(self.hidden(self.text(batch))))


AVERAGES = Entry(Averages, level="sentence", needs=())


def energy(samples_S: np.ndarray) -> np.ndarray:
    """Energy of every tenth of a second: (L, 1)."""
    whole = samples_S[: len(samples_S) // 1600 * 1600].reshape(-1, 1600)
    return (whole**2).mean(axis=1, keepdims=True).astype(np.float32)


ENERGY = AddedExtractor("audio", Extractor(name="energy", version="1.0"), energy)


def kappa(answers: Any) -> float | None:
    """Cohen's kappa of emotions."""
    size = len(answers.labels)
    table = np.zeros((size, size))
    np.add.at(table, (answers.truth, answers.prediction), 1)
    table /= max(table.sum(), 1)
    chance = float(table.sum(0) @ table.sum(1))
    return (float(np.trace(table)) - chance) / (1 - chance) if chance < 1 else None


KAPPA = Metric(kappa, on_request="erc", percent=False)
