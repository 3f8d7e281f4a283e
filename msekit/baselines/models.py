"""Classical fusion models without an LLM, for the cache, metrics and report of the kit.

EF-LSTM and LF-LSTM (early and late fusion), TFN (Zadeh et al. 2017), LMF (Liu et al. 2018). Words are learned
embeddings, not the pre-trained word vectors that their authors use, so the numbers are this kit's own.

Shapes: B batch, T words, L frames, D features of a frame, H hidden size, O outputs (classes, or one intensity).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.mag import aligned
from msekit.adapters.mse import ModalityEncoder
from msekit.adapters.simple import average_frame
from msekit.baselines.catalogue import BASELINES
from msekit.data.batches.batch import Batch

WORD = 64
"""Width of a word's embedding."""
HIDDEN = 64
DROPOUT = 0.3


def lengths_of(batch: Batch, modality: str) -> Tensor:
    """True lengths of a modality that the set has."""
    lengths = getattr(batch, f"{modality}_lengths")
    assert lengths is not None
    return lengths


class EarlyFusion(nn.Module):
    """EF-LSTM: one LSTM over words joined with the frames that belong to them (see `adapters.mag.aligned`).

    Args:
        vocabulary: Words, 0 for padding.
        widths: Features per frame of each modality that the set has.
        outputs: O.
    """

    def __init__(self, vocabulary: int, widths: dict[str, int], outputs: int) -> None:
        super().__init__()
        self.modalities = tuple(widths)
        self.words = nn.Embedding(vocabulary, WORD, padding_idx=0)
        self.encoder = ModalityEncoder(WORD + sum(widths.values()), HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """(B, O)."""
        parts = [self.words(batch.text_ids)]
        for name in self.modalities:
            parts.append(aligned(getattr(batch, name), lengths_of(batch, name), batch.text_mask))
        state_BH = self.encoder(torch.cat(parts, dim=-1), batch.text_lengths)
        return self.output(F.dropout(F.relu(state_BH), DROPOUT, self.training))


class LateFusion(nn.Module):
    """LF-LSTM: an LSTM per modality, their states joined at the end. Arguments as for `EarlyFusion`."""

    def __init__(self, vocabulary: int, widths: dict[str, int], outputs: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WORD, padding_idx=0)
        self.text = ModalityEncoder(WORD, HIDDEN, HIDDEN)
        self.others = nn.ModuleDict({name: ModalityEncoder(width, HIDDEN, HIDDEN) for name, width in widths.items()})
        self.joined = nn.Linear(HIDDEN * (1 + len(widths)), HIDDEN)
        self.output = nn.Linear(HIDDEN, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """(B, O)."""
        states = [self.text(self.words(batch.text_ids), batch.text_lengths)]
        states += [encoder(getattr(batch, name), lengths_of(batch, name)) for name, encoder in self.others.items()]
        joined_BH = F.relu(self.joined(F.dropout(torch.cat(states, dim=-1), DROPOUT, self.training)))
        return self.output(joined_BH)


class Subnetworks(nn.Module):
    """The modality embeddings of TFN and LMF: an LSTM over the words, a small network on each average frame.

    Args:
        vocabulary: Words, 0 for padding.
        widths: Features per frame of each modality that the set has.
        text: Width of the text's embedding.
        other: Width of each other one.
    """

    def __init__(self, vocabulary: int, widths: dict[str, int], text: int, other: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WORD, padding_idx=0)
        self.text = ModalityEncoder(WORD, HIDDEN, text)
        self.others = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, other))
                for name, width in widths.items()
            }
        )

    def forward(self, batch: Batch) -> list[Tensor]:
        """Each modality's embedding with a constant 1 behind it, text first; an absent one is zero but for the 1."""
        states = [F.relu(self.text(self.words(batch.text_ids), batch.text_lengths))]
        for name, network in self.others.items():
            lengths_B = lengths_of(batch, name)
            state_BH = F.relu(network(average_frame(getattr(batch, name), lengths_B)))
            states.append(state_BH * (lengths_B > 0)[:, None])
        return [F.pad(state_BH, (0, 1), value=1.0) for state_BH in states]


class TensorFusion(nn.Module):
    """TFN: the outer product of all modality embeddings, flattened. Arguments as for `EarlyFusion`."""

    TEXT, OTHER = 32, 12

    def __init__(self, vocabulary: int, widths: dict[str, int], outputs: int) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(vocabulary, widths, self.TEXT, self.OTHER)
        fused = (self.TEXT + 1) * (self.OTHER + 1) ** len(widths)
        self.hidden = nn.Linear(fused, HIDDEN)
        self.output = nn.Linear(HIDDEN, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """(B, O)."""
        product_BF, *rest = self.subnetworks(batch)
        for state_BH in rest:
            product_BF = (product_BF[:, :, None] * state_BH[:, None, :]).flatten(1)
        return self.output(F.relu(self.hidden(F.dropout(product_BF, DROPOUT, self.training))))


class LowRankFusion(nn.Module):
    """LMF: the same product through rank-R factors, never built. Arguments as for `EarlyFusion`."""

    TEXT, OTHER, RANK = 32, 12, 4

    def __init__(self, vocabulary: int, widths: dict[str, int], outputs: int) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(vocabulary, widths, self.TEXT, self.OTHER)
        sizes = [self.TEXT + 1, *[self.OTHER + 1] * len(widths)]
        self.factors = nn.ParameterList([nn.init.xavier_normal_(torch.empty(self.RANK, n, HIDDEN)) for n in sizes])
        self.output = nn.Linear(HIDDEN, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """(B, O)."""
        states = self.subnetworks(batch)
        product_RBH = torch.ones((), device=states[0].device)
        for state_BH, factor_RNH in zip(states, self.factors, strict=True):
            product_RBH = product_RBH * (state_BH @ factor_RNH)
        return self.output(product_RBH.sum(dim=0))


def network_of(name: str) -> type[nn.Module]:
    """The class of a baseline that is a network."""
    kind = BASELINES[name]
    assert kind is not None, f"{name} is no network"
    network: type[nn.Module] = globals()[kind] if isinstance(kind, str) else kind
    return network
