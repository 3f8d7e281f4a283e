"""MulT: Multimodal Transformer for Unaligned Multimodal Language Sequences (Tsai et al., ACL 2019).

Sizes are those of its Table 5 for MOSEI. Otherwise than in the released code: padding is masked, the vector of a
sequence is that of its last own step (there, of the last column, which may be padding), and there is no causal mask.

Shapes: B batch, L steps of a modality, d width, M modalities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.baselines.blocks import CrossEncoder, Projected, last_real
from msekit.baselines.rival_batch import RivalBatch, Sizes, real_steps

WIDTH, HEADS, LAYERS = 40, 8, 4
TEXT_DROPOUT, ATTENTION_DROPOUT, DROPOUT = 0.3, 0.1, 0.1


class MulT(nn.Module):
    """Eqs. 1 to 5: a cross-modal encoder for each ordered pair Z_{β→α}, which reads β's low-level sequence in every
    block; those of one target are joined and pass an encoder of their own; the last steps are joined and classified.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modalities, others = sizes.modalities, len(sizes.modalities) - 1
        self.projected = Projected(sizes, WIDTH, bias=False, text_dropout=TEXT_DROPOUT)
        self.crossed = nn.ModuleDict(
            {
                f"{target}_{source}": CrossEncoder(WIDTH, HEADS, LAYERS, ATTENTION_DROPOUT, DROPOUT)
                for target in self.modalities
                for source in self.modalities
                if source != target
            }
        )
        self.memory = nn.ModuleDict(
            {
                target: CrossEncoder(others * WIDTH, HEADS, max(LAYERS, 3), ATTENTION_DROPOUT, DROPOUT)
                for target in self.modalities
            }
        )
        joined = len(self.modalities) * others * WIDTH
        self.first, self.second = nn.Linear(joined, joined), nn.Linear(joined, joined)
        self.output = nn.Linear(joined, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        sequences = self.projected(batch)
        masks = {name: real_steps(lengths, x.shape[1]) for name, (x, lengths) in sequences.items()}
        lasts = []
        for target in self.modalities:
            x_BLd, lengths_B = sequences[target]
            found = [
                self.crossed[f"{target}_{source}"](x_BLd, sequences[source][0], masks[source])
                for source in self.modalities
                if source != target
            ]
            lasts.append(last_real(self.memory[target](torch.cat(found, dim=-1), None, masks[target]), lengths_B))
        joined = torch.cat(lasts, dim=-1)
        hidden = self.second(F.dropout(F.relu(self.first(joined)), DROPOUT, self.training))
        return self.output(joined + hidden)
