"""MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis (Hazarika et al., ACM MM
2020).

Otherwise than in the released code: the text's encoder is frozen (there BERT, the upper layers of which are tuned),
the LSTMs of very wide features are 64 wide, and a sample without a modality is left out of that modality's terms.

Shapes: B batch, H = 128 width of all subspaces, M modalities.
"""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.baselines.blocks import LSTMEncoder, Sentence
from msekit.baselines.losses import moment_distance, orthogonality, task_loss
from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes

HIDDEN, HEADS, FEED, DROPOUT = 128, 2, 2048, 0.5
MOST_LSTM = 64
SIMILARITY, DIFFERENCE, RECONSTRUCTION = 1.0, 0.3, 1.0
"""α, β and γ of eq. 1."""


class TwoLSTMs(nn.Module):
    """An LSTM both ways, a norm over its states, another LSTM; the final states of both are joined: 4·hidden wide."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lower, self.norm = LSTMEncoder(width, hidden, two_way=True), nn.LayerNorm(2 * hidden)
        self.upper = LSTMEncoder(2 * hidden, hidden, two_way=True)

    def forward(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, 4·hidden)."""
        states, low = self.lower(x_BLD, lengths_B)
        _, high = self.upper(self.norm(states), lengths_B)
        return torch.cat([low, high], dim=-1)


class MISA(nn.Module):
    """Sections 3.3 to 3.5: each modality's vector in a space of its own and in one that all share, fused by attention.

    Loss (eq. 1): task + α·similarity + β·difference + γ·reconstruction.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modalities = sizes.modalities
        self.sentence = Sentence(sizes)
        self.encoders = nn.ModuleDict(
            {name: TwoLSTMs(width, min(width, MOST_LSTM)) for name, width in sizes.widths.items()}
        )
        inputs = {TEXT: self.sentence.width} | {name: 4 * min(width, MOST_LSTM) for name, width in sizes.widths.items()}
        self.maps = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.LayerNorm(HIDDEN))
                for name, width in inputs.items()
            }
        )
        self.private = nn.ModuleDict({name: nn.Linear(HIDDEN, HIDDEN) for name in self.modalities})
        self.shared = nn.Linear(HIDDEN, HIDDEN)
        self.decoders = nn.ModuleDict({name: nn.Linear(HIDDEN, HIDDEN) for name in self.modalities})
        self.fusion = nn.TransformerEncoderLayer(HIDDEN, HEADS, FEED, 0.1, batch_first=True)
        parts = 2 * len(self.modalities)
        self.output = nn.Sequential(
            nn.Linear(parts * HIDDEN, parts * HIDDEN // 2),
            nn.Dropout(DROPOUT),
            nn.ReLU(),
            nn.Linear(parts * HIDDEN // 2, sizes.outputs),
        )
        for encoder in self.encoders.values():
            for name, weights in encoder.named_parameters():
                if "weight_hh" in name:
                    nn.init.orthogonal_(weights)

    def spaces(self, batch: RivalBatch) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """(B, H) of each modality: as it comes in, in its own space, in the shared one."""
        vectors = {TEXT: self.sentence(batch)}
        vectors |= {name: encoder(*batch.frames(name)) for name, encoder in self.encoders.items()}
        came = {name: self.maps[name](x_BD) for name, x_BD in vectors.items()}
        own = {name: torch.sigmoid(self.private[name](x_BH)) for name, x_BH in came.items()}
        return came, own, {name: torch.sigmoid(self.shared(x_BH)) for name, x_BH in came.items()}

    def fused(self, batch: RivalBatch, own: dict[str, Tensor], shared: dict[str, Tensor]) -> Tensor:
        """(B, O) of the vectors of both spaces."""
        parts_BPH = torch.stack([*own.values(), *shared.values()], dim=1)
        there_BP = torch.stack([batch.present(name) for name in self.modalities] * 2, dim=1)
        fused_BPH = self.fusion(parts_BPH, src_key_padding_mask=~there_BP) * there_BP[..., None]
        return self.output(fused_BPH.flatten(1))

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        _, own, shared = self.spaces(batch)
        return self.fused(batch, own, shared)

    def loss(self, batch: RivalBatch) -> Tensor:
        """Squared error of an intensity or cross-entropy, and the three terms over the samples that have what is
        compared; the first two need two such samples."""
        came, own, shared = self.spaces(batch)
        outputs_BO = self.fused(batch, own, shared)
        regression = outputs_BO.shape[1] == 1
        task = F.mse_loss(outputs_BO[:, 0], batch.truth) if regression else task_loss(outputs_BO, batch.truth)
        there = {name: batch.present(name) for name in self.modalities}
        pairs = list(combinations(self.modalities, 2))
        similar, different = [], []
        for one, other in pairs:
            both_B = there[one] & there[other]
            if both_B.sum() >= 2:
                similar.append(moment_distance(shared[one][both_B], shared[other][both_B]))
                different.append(orthogonality(own[one][both_B], own[other][both_B]))
        rebuilt = []
        for name, there_B in there.items():
            if there_B.sum() >= 2:
                different.append(orthogonality(own[name][there_B], shared[name][there_B]))
            if there_B.any():
                decoded = self.decoders[name](own[name] + shared[name])
                rebuilt.append(F.mse_loss(decoded[there_B], came[name][there_B]))
        loss = task + RECONSTRUCTION * sum(rebuilt) / len(self.modalities)
        loss = loss + SIMILARITY * sum(similar, task * 0) / len(pairs)
        return loss + DIFFERENCE * sum(different, task * 0)
