"""EFT and LFT: early and late fusion with Transformers, the baselines of the CHERMA paper (Sun et al., ACL 2023).

That paper prints no definition of either; these are what the names say, at the width of `lfmim` here.

Shapes: B batch, L steps of a modality, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from msekit.baselines.blocks import CrossEncoder, Projected, masked_mean, mlp, positions
from msekit.baselines.rival_batch import RivalBatch, Sizes, real_steps

WIDTH, HEADS, LAYERS = 64, 4, 4
ATTENTION_DROPOUT, DROPOUT = 0.2, 0.1


class EarlyTransformer(nn.Module):
    """`eft`: all sequences one behind the other, with positions and a learned vector for each modality, through one
    Transformer; the mean over all steps is classified.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.projected = Projected(sizes, WIDTH)
        self.kinds = nn.ParameterDict({name: nn.Parameter(torch.randn(WIDTH) * 0.02) for name in sizes.modalities})
        self.encoder = CrossEncoder(WIDTH, HEADS, LAYERS, ATTENTION_DROPOUT, DROPOUT, scaled=False)
        self.output = mlp((WIDTH, WIDTH, sizes.outputs), DROPOUT)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        parts, masks = [], []
        for name, (x_BLd, lengths_B) in self.projected(batch).items():
            parts.append(math.sqrt(WIDTH) * x_BLd + positions(x_BLd) + self.kinds[name])
            masks.append(real_steps(lengths_B, x_BLd.shape[1]))
        mask_BL = torch.cat(masks, dim=1)
        return self.output(masked_mean(self.encoder(torch.cat(parts, dim=1), None, mask_BL), mask_BL))


class LateTransformer(nn.Module):
    """`lft`: a Transformer for each modality; the means over their steps are joined and classified."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.projected = Projected(sizes, WIDTH)
        self.encoders = nn.ModuleDict(
            {name: CrossEncoder(WIDTH, HEADS, LAYERS, ATTENTION_DROPOUT, DROPOUT) for name in sizes.modalities}
        )
        self.output = mlp((len(sizes.modalities) * WIDTH, WIDTH, sizes.outputs), DROPOUT)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        means = []
        for name, (x_BLd, lengths_B) in self.projected(batch).items():
            mask_BL = real_steps(lengths_B, x_BLd.shape[1])
            means.append(masked_mean(self.encoders[name](x_BLd, None, mask_BL), mask_BL))
        return self.output(torch.cat(means, dim=-1))
