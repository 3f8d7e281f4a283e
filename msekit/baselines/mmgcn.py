"""MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in Conversation (Hu et al., ACL
2021).

Otherwise than in the released code: four layers (its code has 64 whatever is asked for), a focal loss on the true class
alone (theirs adds a pull to all others), dialogues packed by their true lengths. As there, the speaker is added to the
text. Sound and picture are the mean frame of an utterance.

Shapes: B utterances of whole dialogues, G dialogues, N of the longest, M modalities, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.simple import average_frame
from msekit.baselines.blocks import Sentence
from msekit.baselines.dialogues import OverGroups, dialogues_of
from msekit.baselines.graphs import DeepGraph, angle_graph
from msekit.baselines.losses import focal
from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes

WIDTH, HIDDEN, LAYERS = 200, 100, 4
ALPHA, LAMBDA, DROPOUT, GAMMA = 0.1, 0.5, 0.4, 1.0


class Utterances(nn.Module):
    """Every modality of an utterance → one vector each, zero where the utterance lacks it.

    Args:
        sizes: Of the data.
        width: d.
        kind: Of the two-way network over a dialogue's texts.
        dropout: Of that network.
    """

    def __init__(self, sizes: Sizes, width: int, kind: type[nn.LSTM] | type[nn.GRU], dropout: float) -> None:
        super().__init__()
        self.sentence = Sentence(sizes)
        inputs = {TEXT: self.sentence.width, **sizes.widths}
        self.maps = nn.ModuleDict({name: nn.Linear(size, width) for name, size in inputs.items()})
        self.context = OverGroups(width, width // 2, 2, dropout, kind)

    def forward(self, batch: RivalBatch) -> dict[str, Tensor]:
        """Modality → (B, d)."""
        vectors = {TEXT: self.context(self.maps[TEXT](self.sentence(batch)), dialogues_of(batch))}
        for name in self.maps:
            if name != TEXT:
                mean_BD = average_frame(*batch.frames(name))
                vectors[name] = self.maps[name](mean_BD) * batch.present(name)[:, None]
        return vectors


def over_the_graph(batch: RivalBatch, vectors: dict[str, Tensor], network: DeepGraph) -> Tensor:
    """(B, M·(d + H)): what the network makes of each utterance's nodes, side by side; zeros for one not there."""
    groups = dialogues_of(batch)
    nodes = [groups.spread(x_Bd) for x_Bd in vectors.values()]
    there = [groups.spread(batch.present(name)) for name in vectors]
    found = network(torch.cat(nodes, dim=1), angle_graph(nodes, there)) * torch.cat(there, dim=1)[..., None]
    return torch.cat([groups.back(part) for part in found.chunk(len(nodes), dim=1)], dim=-1)


class MMGCN(nn.Module):
    """Sections 3.2 to 3.5: utterance vectors, speakers, one graph over all modalities of a dialogue, GCNII layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.utterances = Utterances(sizes, WIDTH, nn.LSTM, DROPOUT)
        self.speakers = nn.Embedding(sizes.speakers + 1, WIDTH)
        self.graph = DeepGraph(WIDTH, HIDDEN, LAYERS, ALPHA, LAMBDA, DROPOUT)
        self.output = nn.Linear(len(sizes.modalities) * (WIDTH + HIDDEN), sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        vectors = self.utterances(batch)
        vectors[TEXT] = vectors[TEXT] + self.speakers(batch.speaker)
        found_BF = over_the_graph(batch, vectors, self.graph)
        return self.output(F.relu(F.dropout(found_BF, DROPOUT, self.training)))

    def loss(self, batch: RivalBatch) -> Tensor:
        """Focal (γ = 1)."""
        return focal(self(batch), batch.truth, GAMMA)
