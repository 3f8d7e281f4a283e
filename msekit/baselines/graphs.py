"""Graphs over the utterances of dialogues, as dense matrices: dialogues are short, and a batch is one product.

Shapes: G dialogues, N utterances of the longest, M modalities, V = M·N nodes, d width, H hidden size, h heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_INSIDE = 0.99999
"""Of a cosine: the gradient of arccos is infinite at 1."""


def angle_graph(nodes: list[Tensor], present: list[Tensor]) -> Tensor:
    """MMGCN's graph (Hu et al. 2021, section 3.3): weights by angle, symmetrically normalised.

    Within a modality every two utterances of a dialogue are joined, an utterance with itself too; between modalities
    the nodes of the same utterance. Weight 1 − arccos(.99999 cos)/π; then D^−½ A D^−½.

    Args:
        nodes: (G, N, d) of each modality.
        present: (G, N) bool of each; nodes that are not there are joined to none.

    Returns:
        (G, V, V), modality after modality.
    """
    count, size = len(nodes), nodes[0].shape[1]
    x_GVd = F.normalize(torch.cat(nodes, dim=1), dim=-1, eps=1e-8)
    weight_GVV = 1 - torch.arccos(_INSIDE * (x_GVd @ x_GVd.transpose(1, 2)).clamp(-1, 1)) / math.pi
    device = x_GVd.device
    modality_V = torch.arange(count, device=device).repeat_interleave(size)
    utterance_V = torch.arange(size, device=device).repeat(count)
    joined_VV = (modality_V[:, None] == modality_V) | (utterance_V[:, None] == utterance_V)
    there_GV = torch.cat(present, dim=1)
    joined_GVV = joined_VV & there_GV[:, :, None] & there_GV[:, None, :]
    weight_GVV = weight_GVV * joined_GVV
    degree_GV = weight_GVV.sum(dim=-1)
    root_GV = torch.where(degree_GV > 0, degree_GV.clamp(min=1e-12).rsqrt(), 0)
    return root_GV[:, :, None] * weight_GVV * root_GV[:, None, :]


class GraphLayer(nn.Module):
    """θ [A h; h⁰] W + (1−θ)((1−α) A h + α h⁰), θ = log(λ/l + 1): GCNII (Chen et al. 2020) as MMGCN has it.

    Args:
        hidden: H.
        number: l, from 1.
        alpha: α.
        lam: λ.
    """

    def __init__(self, hidden: int, number: int, alpha: float, lam: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * hidden, hidden))
        nn.init.uniform_(self.weight, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))
        self.alpha, self.theta = alpha, math.log(lam / number + 1)

    def forward(self, graph_GVV: Tensor, h_GVH: Tensor, first_GVH: Tensor) -> Tensor:
        """(G, V, H)."""
        around_GVH = graph_GVV @ h_GVH
        mixed_GVH = (1 - self.alpha) * around_GVH + self.alpha * first_GVH
        return self.theta * torch.cat([around_GVH, first_GVH], dim=-1) @ self.weight + (1 - self.theta) * mixed_GVH


class DeepGraph(nn.Module):
    """GCNII layers behind a Linear; with memory, MM-DFN's dynamic fusion: an LSTM cell over depth.

    Plain: h ← ReLU(layer(h)). With memory: (x, c) ← LSTM(h, (x, c)); h ← Drop(ReLU(layer(x))) + h. One cell serves all
    layers and nodes.

    Args:
        width: d.
        hidden: H.
        layers: How many.
        alpha: α.
        lam: λ.
        dropout: Before each layer, or behind it with memory.
        memory: Whether there is the LSTM cell.
    """

    def __init__(
        self, width: int, hidden: int, layers: int, alpha: float, lam: float, dropout: float, memory: bool = False
    ) -> None:
        super().__init__()
        self.opening = nn.Linear(width, hidden)
        self.layers = nn.ModuleList(GraphLayer(hidden, number, alpha, lam) for number in range(1, layers + 1))
        self.cell = nn.LSTMCell(hidden, hidden) if memory else None
        self.dropout = dropout

    def forward(self, x_GVd: Tensor, graph_GVV: Tensor) -> Tensor:
        """(G, V, d + H): the nodes as they came in, after dropout, with what the layers make of them."""
        x_GVd = self._drop(x_GVd)
        first_GVH = h_GVH = F.relu(self.opening(x_GVd))
        state: tuple[Tensor, Tensor] | None = None
        for layer in self.layers:
            if self.cell is None:
                h_GVH = F.relu(layer(graph_GVV, self._drop(h_GVH), first_GVH))
                continue
            state = self.cell(h_GVH.flatten(0, 1), state)
            remembered_GVH = state[0].view_as(h_GVH)
            h_GVH = self._drop(F.relu(layer(graph_GVV, remembered_GVH, first_GVH))) + h_GVH
        return torch.cat([x_GVd, self._drop(h_GVH)], dim=-1)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def window(mask_GN: Tensor, past: int, future: int) -> Tensor:
    """(G, N, N) bool: which utterances j an utterance i is joined to, i − past ≤ j ≤ i + future, both there."""
    place_N = torch.arange(mask_GN.shape[1], device=mask_GN.device)
    ahead_NN = place_N[None] - place_N[:, None]
    near_NN = (ahead_NN >= -past) & (ahead_NN <= future)
    return near_NN & mask_GN[:, :, None] & mask_GN[:, None, :]


class GraphAttention(nn.Module):
    """GATv2 (Brody et al. 2022): weights softmax_j aᵀ LeakyReLU(W_l x_j + W_r x_i), heads averaged.

    Args:
        width: d.
        heads: h.
        dropout: Of the weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.left, self.right = nn.Linear(width, heads * width), nn.Linear(width, heads * width)
        self.score = nn.Parameter(torch.empty(heads, width))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.score)

    def forward(self, x_GNd: Tensor, joined_GNN: Tensor) -> Tensor:
        """(G, N, d); entry (i, j) of the mask joins i to its neighbour j."""
        left_GNhd = self.left(x_GNd).unflatten(-1, (self.heads, -1))
        right_GNhd = self.right(x_GNd).unflatten(-1, (self.heads, -1))
        pairs_GNNhd = F.leaky_relu(right_GNhd[:, :, None] + left_GNhd[:, None], 0.2)
        scores_GNNh = (pairs_GNNhd * self.score).sum(dim=-1).masked_fill(~joined_GNN[..., None], -1e9)
        weights_GNNh = scores_GNNh.softmax(dim=2) * joined_GNN[..., None]
        weights_GNNh = F.dropout(weights_GNNh, self.dropout, self.training)
        return torch.einsum("gijh,gjhd->gid", weights_GNNh, left_GNhd) / self.heads + self.bias
