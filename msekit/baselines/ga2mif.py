"""GA2MIF: Graph and Attention Based Two-Stage Multi-Source Information Fusion for Conversational Emotion Detection (Li
et al., IEEE TAFFC 2023).

Otherwise than in the released code: the graph layers have weights of their own (there one layer serves all), each
modality gets the sum of both others' attention (there one of the two is overwritten), padding is masked (there it is
attended to), and speakers begin as small vectors: at a deviation of 1 they are a hundred times what is said.

Shapes: B utterances of whole dialogues, G dialogues, N of the longest, M modalities, d width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.simple import average_frame
from msekit.baselines.blocks import Attention, Sentence, mlp
from msekit.baselines.dialogues import OverGroups, dialogues_of
from msekit.baselines.graphs import GraphAttention, window
from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes

WIDTH, WINDOW, SPEAKER_WEIGHT, DROPOUT = 200, 16, 1.6, 0.1
GRAPH_LAYERS, GRAPH_HEADS = 3, 4
CROSS_LAYERS, CROSS_HEADS = 4, 8


class GraphStage(nn.Module):
    """MDGAT of one modality: x ← LayerNorm(x + GAT(x)) on the graph of near utterances."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GraphAttention(WIDTH, GRAPH_HEADS, DROPOUT) for _ in range(GRAPH_LAYERS))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(GRAPH_LAYERS))

    def forward(self, x_GNd: Tensor, joined_GNN: Tensor) -> Tensor:
        """(G, N, d)."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x_GNd = norm(x_GNd + layer(x_GNd, joined_GNN))
        return x_GNd


class CrossStage(nn.Module):
    """A layer of MPCAT: modality m gets the sum over the others o of attention with o's queries to m's keys and values,
    then a feed-forward layer; a residual and a norm behind each.
    """

    def __init__(self, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.pairs = nn.ModuleDict(
            {
                f"{own}_{other}": Attention(WIDTH, CROSS_HEADS, DROPOUT)
                for own in modalities
                for other in modalities
                if other != own
            }
        )
        self.feeds = nn.ModuleDict({name: mlp((WIDTH, 2 * WIDTH, WIDTH), DROPOUT) for name in modalities})
        self.norms: Any = nn.ModuleDict(
            {name: nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)]) for name in modalities}
        )

    def forward(self, vectors: dict[str, Tensor], there: dict[str, Tensor]) -> dict[str, Tensor]:
        """(G, N, d) of each modality, with the utterances (G, N) that have it."""
        found = {}
        for own, x_GNd in vectors.items():
            heard = [
                self.pairs[f"{own}_{other}"](vectors[other], x_GNd, there[own]) * there[other][..., None]
                for other in vectors
                if other != own
            ]
            first, second = self.norms[own]
            x_GNd = first(x_GNd + torch.stack(heard).sum(dim=0))
            found[own] = second(x_GNd + self.feeds[own](x_GNd))
        return found


class GA2MIF(nn.Module):
    """Section 3: utterance vectors with their speaker, graph attention in each modality, attention between them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sentence = Sentence(sizes)
        inputs = {TEXT: self.sentence.width, **sizes.widths}
        self.maps = nn.ModuleDict({name: nn.Linear(size, WIDTH) for name, size in inputs.items()})
        self.context, self.after_context = OverGroups(WIDTH, WIDTH, 2, DROPOUT, nn.LSTM), nn.Linear(2 * WIDTH, WIDTH)
        self.speakers = nn.Embedding(sizes.speakers + 1, WIDTH)
        nn.init.normal_(self.speakers.weight, std=0.02)
        self.graphs = nn.ModuleDict({name: GraphStage() for name in sizes.modalities})
        self.crossed = nn.ModuleList(CrossStage(sizes.modalities) for _ in range(CROSS_LAYERS))
        self.joined = nn.Linear(len(sizes.modalities) * WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        groups = dialogues_of(batch)
        text_Bd = self.context(self.maps[TEXT](self.sentence(batch)), groups)
        vectors = {TEXT: self.after_context(text_Bd)}
        for name in self.maps:
            if name != TEXT:
                vectors[name] = torch.tanh(self.maps[name](average_frame(*batch.frames(name))))
        speaker_Bd = SPEAKER_WEIGHT * self.speakers(batch.speaker)
        spread, there = {}, {}
        for name, x_Bd in vectors.items():
            there[name] = groups.spread(batch.present(name))
            x_GNd = groups.spread(F.dropout(x_Bd + speaker_Bd, DROPOUT, self.training))
            spread[name] = self.graphs[name](x_GNd, window(there[name], WINDOW, WINDOW))
        for layer in self.crossed:
            spread = layer(spread, there)
        parts = [groups.back(x_GNd * there[name][..., None]) for name, x_GNd in spread.items()]
        joined_Bd = self.joined(torch.cat(parts, dim=-1))
        return self.output(F.dropout(joined_Bd, DROPOUT, self.training))
