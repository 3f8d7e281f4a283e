"""Classical fusion models without an LLM, for the cache, metrics and report of the kit.

EF-LSTM and LF-LSTM (early and late fusion), TFN (Zadeh et al. 2017), LMF (Liu et al. 2018). Their
authors use pre-trained word vectors; here the text is what `--text-from` says, so the numbers are this kit's own.

Shapes: B batch, T words, L frames, D features of a frame, H hidden size, O outputs (classes, or one intensity).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.mag import aligned
from msekit.adapters.mse import ModalityEncoder
from msekit.adapters.simple import average_frame
from msekit.baselines.blocks import Words
from msekit.baselines.rival_batch import RivalBatch, Sizes

HIDDEN = 64
DROPOUT = 0.3


class EarlyFusion(nn.Module):
    """EF-LSTM: one LSTM over words joined with the frames that belong to them (see `adapters.mag.aligned`)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modalities = tuple(sizes.widths)
        self.words = Words(sizes)
        self.encoder = ModalityEncoder(self.words.width + sum(sizes.widths.values()), HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        parts = [self.words(batch)]
        for name in self.modalities:
            parts.append(aligned(*batch.frames(name), batch.text_mask))
        state_BH = self.encoder(torch.cat(parts, dim=-1), batch.text_lengths)
        return self.output(F.dropout(F.relu(state_BH), DROPOUT, self.training))


class LateFusion(nn.Module):
    """LF-LSTM: an LSTM per modality, their states joined at the end."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        widths = sizes.widths
        self.words = Words(sizes)
        self.text = ModalityEncoder(self.words.width, HIDDEN, HIDDEN)
        self.others = nn.ModuleDict({name: ModalityEncoder(width, HIDDEN, HIDDEN) for name, width in widths.items()})
        self.joined = nn.Linear(HIDDEN * (1 + len(widths)), HIDDEN)
        self.output = nn.Linear(HIDDEN, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        states = [self.text(self.words(batch), batch.text_lengths)]
        states += [encoder(*batch.frames(name)) for name, encoder in self.others.items()]
        joined_BH = F.relu(self.joined(F.dropout(torch.cat(states, dim=-1), DROPOUT, self.training)))
        return self.output(joined_BH)


class Subnetworks(nn.Module):
    """The modality embeddings of TFN and LMF: an LSTM over the words, a small network on each average frame.

    Args:
        sizes: Of the data.
        text: Width of the text's embedding.
        other: Width of each other one.
    """

    def __init__(self, sizes: Sizes, text: int, other: int) -> None:
        super().__init__()
        self.words = Words(sizes)
        self.text = ModalityEncoder(self.words.width, HIDDEN, text)
        self.others = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, other))
                for name, width in sizes.widths.items()
            }
        )

    def forward(self, batch: RivalBatch) -> list[Tensor]:
        """Each modality's embedding with a constant 1 behind it, text first; an absent one is zero but for the 1."""
        states = [F.relu(self.text(self.words(batch), batch.text_lengths))]
        for name, network in self.others.items():
            state_BH = F.relu(network(average_frame(*batch.frames(name))))
            states.append(state_BH * batch.present(name)[:, None])
        return [F.pad(state_BH, (0, 1), value=1.0) for state_BH in states]


class TensorFusion(nn.Module):
    """TFN: the outer product of all modality embeddings, flattened."""

    TEXT, OTHER = 32, 12

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(sizes, self.TEXT, self.OTHER)
        fused = (self.TEXT + 1) * (self.OTHER + 1) ** len(sizes.widths)
        self.hidden = nn.Linear(fused, HIDDEN)
        self.output = nn.Linear(HIDDEN, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        product_BF, *rest = self.subnetworks(batch)
        for state_BH in rest:
            product_BF = (product_BF[:, :, None] * state_BH[:, None, :]).flatten(1)
        return self.output(F.relu(self.hidden(F.dropout(product_BF, DROPOUT, self.training))))


class LowRankFusion(nn.Module):
    """LMF: the same product through rank-R factors, never built."""

    TEXT, OTHER, RANK = 32, 12, 4

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(sizes, self.TEXT, self.OTHER)
        widths = [self.TEXT + 1, *[self.OTHER + 1] * len(sizes.widths)]
        self.factors = nn.ParameterList([nn.init.xavier_normal_(torch.empty(self.RANK, n, HIDDEN)) for n in widths])
        self.output = nn.Linear(HIDDEN, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        states = self.subnetworks(batch)
        product_RBH = torch.ones((), device=states[0].device)
        for state_BH, factor_RNH in zip(states, self.factors, strict=True):
            product_RBH = product_RBH * (state_BH @ factor_RNH)
        return self.output(product_RBH.sum(dim=0))
