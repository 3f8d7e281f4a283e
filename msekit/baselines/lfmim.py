"""LFMIM: Layer-wise Fusion with Modality Independence Modeling (Sun et al., ACL 2023).

Otherwise than in the released code: 64 wide instead of 1024, padding is masked, and a sequence is reduced by learned
scores over its own steps instead of a learned weight for each position, which needs one length. Where a set has no
labels by modality, every tower learns the sample's.

Shapes: B batch, L steps of a modality (its learned step first), d width, M modalities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.baselines.blocks import Attention, LearnedPool, Projected, mlp, positions
from msekit.baselines.losses import task_loss
from msekit.baselines.rival_batch import VISION, RivalBatch, Sizes, real_steps

WIDTH, HEADS, LAYERS, OWN = 64, 4, 4, 4
"""Of the multimodal sequence, the first OWN steps are learned."""
OPENING_DROPOUT, ATTENTION_DROPOUT, FEED_DROPOUT = 0.25, 0.2, 0.1


class Block(nn.Module):
    """x ← x + LN(MHA(LN x)), then x ← x + LN(W₂ Drop(ReLU(W₁ LN x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width, HEADS, ATTENTION_DROPOUT)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.feed = mlp((width, 4 * width, width), FEED_DROPOUT)

    def forward(self, x_BLd: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, d)."""
        normed = self.norms[0](x_BLd)
        x_BLd = x_BLd + self.norms[1](self.attention(normed, normed, mask_BL))
        return x_BLd + self.norms[3](self.feed(self.norms[2](x_BLd)))


class LFMIM(nn.Module):
    """Section 3: a tower for each modality and one for all.

    In layer i the multimodal sequence is its own steps and, of every modality, p · (its part after layer i − 1) +
    q · (the tower's states before layer i); in the first, the tower's states alone. Then all towers advance by a block
    (vision by two). Information flows into the multimodal tower only.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modalities = sizes.modalities
        self.projected = Projected(sizes, WIDTH)
        self.starts = nn.ParameterDict({name: nn.Parameter(torch.randn(1, WIDTH) * 0.02) for name in self.modalities})
        self.own = nn.Parameter(torch.randn(OWN, WIDTH) * 0.02)
        self.opening_norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.randn(2)) for name in self.modalities})
        """p and q of each modality."""
        self.towers: Any = nn.ModuleDict(
            {
                name: nn.ModuleList(Block(WIDTH) for _ in range(LAYERS * (2 if name == VISION else 1)))
                for name in self.modalities
            }
        )
        self.multimodal = nn.ModuleList(Block(WIDTH) for _ in range(LAYERS))
        names = (*self.modalities, "all")
        self.norms = nn.ModuleDict({name: nn.LayerNorm(WIDTH) for name in names})
        self.pools = nn.ModuleDict({name: LearnedPool(WIDTH) for name in names})
        self.heads = nn.ModuleDict({name: mlp((WIDTH, WIDTH // 2, 32, sizes.outputs)) for name in self.modalities})
        joined = len(names) * WIDTH
        self.output = mlp((joined, joined // 2, 128, 64, sizes.outputs), FEED_DROPOUT)

    def _opened(self, x_BLd: Tensor) -> Tensor:
        x_BLd = self.opening_norms[0](math.sqrt(WIDTH) * x_BLd) + positions(x_BLd)
        return self.opening_norms[1](F.dropout(x_BLd, OPENING_DROPOUT, self.training))

    def towers_of(self, batch: RivalBatch) -> dict[str, Tensor]:
        """(B, O) of each modality, and of `all`."""
        states, masks = {}, {}
        for name, (x_BLd, lengths_B) in self.projected(batch).items():
            start = self.starts[name].expand(len(x_BLd), 1, -1)
            states[name] = self._opened(torch.cat([start, x_BLd], dim=1))
            masks[name] = real_steps(lengths_B + (lengths_B > 0), x_BLd.shape[1] + 1)
        own = self._opened(self.own.expand(len(batch.index), -1, -1))
        own_mask = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
        mask = torch.cat([own_mask, *masks.values()], dim=1)
        lengths = [OWN, *(x.shape[1] for x in states.values())]
        parts = dict(states)
        for number in range(LAYERS):
            if number:
                parts = {n: self.weights[n][0] * parts[n] + self.weights[n][1] * states[n] for n in states}
            joined = self.multimodal[number](torch.cat([own, *parts.values()], dim=1), mask)
            for name in self.modalities:
                per_layer = len(self.towers[name]) // LAYERS
                for block in self.towers[name][number * per_layer : (number + 1) * per_layer]:
                    states[name] = block(states[name], masks[name])
            own, *rest = joined.split(lengths, dim=1)
            parts = dict(zip(states, rest, strict=True))
        pooled = {name: self.pools[name](self.norms[name](x), masks[name]) for name, x in states.items()}
        pooled["all"] = self.pools["all"](self.norms["all"](joined), mask)
        return {name: self.heads[name](pooled[name]) for name in self.modalities} | {
            "all": self.output(torch.cat(list(pooled.values()), dim=-1))
        }

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O), the multimodal tower's."""
        return self.towers_of(batch)["all"]

    def loss(self, batch: RivalBatch) -> Tensor:
        """The sum of every tower's loss by its own label; a sample without a modality is none of its tower's."""
        outputs = self.towers_of(batch)
        total = task_loss(outputs["all"], batch.truth)
        for name in self.modalities:
            there_B = batch.present(name)
            if there_B.any():
                share = there_B.float().mean()
                total = total + share * task_loss(outputs[name][there_B], batch.truth_of(name)[there_B])
        return total
