"""MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition in Conversations (Hu et al., ICASSP 2022).

Otherwise than in the released code: 16 layers (its grid has 16, 32 and 64), dialogues packed by their true lengths, one
weight of 1 for what a speaker's own utterances say (there .5, .5 and 1.5 by modality on MELD).

Shapes: B utterances of whole dialogues, d width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from msekit.baselines.dialogues import OverGroups, parties_of
from msekit.baselines.graphs import DeepGraph
from msekit.baselines.losses import focal
from msekit.baselines.mmgcn import Utterances, over_the_graph
from msekit.baselines.rival_batch import RivalBatch, Sizes

WIDTH, HIDDEN, LAYERS = 200, 100, 16
ALPHA, LAMBDA, DROPOUT, GAMMA = 0.2, 0.5, 0.2, 1.0


class MMDFN(nn.Module):
    """Sections 2.2 to 2.4: a GRU over the dialogue's texts and one over each speaker's own utterances, which all
    modalities share; the graph of MMGCN with a memory over its depth.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.utterances = Utterances(sizes, WIDTH, nn.GRU, DROPOUT)
        self.parties = OverGroups(WIDTH, WIDTH // 2, 2, DROPOUT, nn.GRU)
        self.graph = DeepGraph(WIDTH, HIDDEN, LAYERS, ALPHA, LAMBDA, DROPOUT, memory=True)
        self.output = nn.Linear(len(sizes.modalities) * (WIDTH + HIDDEN), sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        parties = parties_of(batch)
        vectors = {
            name: (x_Bd + self.parties(x_Bd, parties)) * batch.present(name)[:, None]
            for name, x_Bd in self.utterances(batch).items()
        }
        found_BF = over_the_graph(batch, vectors, self.graph)
        return self.output(F.relu(F.dropout(found_BF, DROPOUT, self.training)))

    def loss(self, batch: RivalBatch) -> Tensor:
        """Focal (γ = 1)."""
        return focal(self(batch), batch.truth, GAMMA)
