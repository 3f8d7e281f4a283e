"""PMR: Progressive Modality Reinforcement for Human Multimodal Emotion Recognition (Lv et al., CVPR 2021).

Its authors published no code; of the two forms in which others build its unit, this is the one with residuals.
Otherwise than there, the weights of the hub's parts come from their means (flattened, they would need one length), and
the head reads means over own steps.

Shapes: B batch, L steps of a modality, C steps of the hub (all modalities one behind the other), d width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.baselines.blocks import Attention, CrossEncoder, Projected, masked_mean, mlp, positions
from msekit.baselines.rival_batch import RivalBatch, Sizes, real_steps

WIDTH, HEADS, LAYERS = 40, 8, 4
ATTENTION_DROPOUT, DROPOUT = 0.1, 0.1


class ReinforcementUnit(nn.Module):
    """A target is reinforced by a source: X = G ⊙ CA + (1 − G) ⊙ SA with G = σ(W_s SA + W_c CA + b), where SA is the
    target's attention to itself and CA that to the source. The target goes around it, and both around a feed-forward
    layer, with a norm behind each.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own, self.cross = (Attention(width, HEADS, ATTENTION_DROPOUT) for _ in range(2))
        self.gate_own, self.gate_cross = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.feed = mlp((width, 4 * width, width), DROPOUT)

    def forward(self, target: Tensor, target_mask: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
        """(B, T, d) with (B, T), (B, S, d) with (B, S) → (B, T, d)."""
        own, cross = self.own(target, target, target_mask), self.cross(target, source, source_mask)
        gate = torch.sigmoid(self.gate_own(own) + self.gate_cross(cross))
        x = self.norms[0](target + gate * cross + (1 - gate) * own)
        return self.norms[1](x + self.feed(x))


class HubLayer(nn.Module):
    """The hub reinforces every modality, then they the hub: C ← Σ_m a_m C_m, a = softmax_m uᵀ tanh(W C_m + b).

    Then a feed-forward layer with a norm over the hub. A modality that a sample lacks has no share in a.
    """

    def __init__(self, width: int, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleDict({name: ReinforcementUnit(width) for name in modalities})
        self.up = nn.ModuleDict({name: ReinforcementUnit(width) for name in modalities})
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, 1, bias=False)
        self.feed, self.norm = mlp((width, 4 * width, width), DROPOUT), nn.LayerNorm(width)

    def forward(
        self, hub_BCd: Tensor, hub_mask_BC: Tensor, parts: dict[str, Tensor], masks: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The hub (B, C, d) and the modalities (B, L, d), all reinforced."""
        parts = {name: self.down[name](x, masks[name], hub_BCd, hub_mask_BC) for name, x in parts.items()}
        ups = [self.up[name](hub_BCd, hub_mask_BC, x, masks[name]) for name, x in parts.items()]
        scores = [self.outer(torch.tanh(self.inner(masked_mean(up, hub_mask_BC)))) for up in ups]
        there_BM = torch.stack([masks[name].any(dim=1) for name in parts], dim=1)
        shares_BM = torch.cat(scores, dim=1).masked_fill(~there_BM, -1e9).softmax(dim=1)
        hub_BCd = sum((share_B[:, None, None] * up for share_B, up in zip(shares_BM.T, ups, strict=True)), hub_BCd * 0)
        return self.norm(hub_BCd + self.feed(hub_BCd)), parts


class PMR(nn.Module):
    """Section 3: low-level sequences, layers of reinforcement, and a Transformer over the hub and all modalities."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.projected = Projected(sizes, WIDTH, bias=False)
        self.layers = nn.ModuleList(HubLayer(WIDTH, sizes.modalities) for _ in range(LAYERS))
        self.joined = CrossEncoder(WIDTH, HEADS, 1, ATTENTION_DROPOUT, DROPOUT, scaled=False)
        self.residual, self.output = mlp((WIDTH, WIDTH, WIDTH), DROPOUT), nn.Linear(WIDTH, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        parts, masks = {}, {}
        for name, (x_BLd, lengths_B) in self.projected(batch).items():
            opened = math.sqrt(WIDTH) * x_BLd + positions(x_BLd)
            parts[name] = F.dropout(opened, DROPOUT, self.training)
            masks[name] = real_steps(lengths_B, x_BLd.shape[1])
        hub_mask_BC = torch.cat(list(masks.values()), dim=1)
        hub_BCd = torch.cat(list(parts.values()), dim=1)
        for layer in self.layers:
            hub_BCd, parts = layer(hub_BCd, hub_mask_BC, parts, masks)
        every = torch.cat([hub_BCd, *parts.values()], dim=1)
        mask = torch.cat([hub_mask_BC, hub_mask_BC], dim=1)
        pooled_Bd = masked_mean(self.joined(every, None, mask), mask)
        return self.output(pooled_Bd + self.residual(pooled_Bd))
