"""EmoCaps: Emotion Capsule based Model for Conversational Emotion Recognition (Li et al., Findings of ACL 2022).

The Emoformer is built from the paper's description, not from code, which was never released whole; the context model is
that of the released part.

Shapes: B utterances of whole dialogues, G dialogues, N of the longest, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msekit.adapters.simple import average_frame
from msekit.baselines.blocks import CrossEncoder, Sentence, mlp
from msekit.baselines.dialogues import Groups, OverGroups, dialogues_of
from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes

WIDTH, HEADS, LAYERS, EMOTION, HIDDEN = 128, 4, 2, 100, 100
ATTENTION_DROPOUT, DROPOUT = 0.1, 0.25


class Emoformer(nn.Module):
    """Section 3.2: self-attention over a dialogue's utterances, then five Linear layers to an emotion vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.opening = nn.Linear(width, WIDTH)
        self.encoder = CrossEncoder(WIDTH, HEADS, LAYERS, ATTENTION_DROPOUT, DROPOUT)
        self.mapping = mlp((WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, EMOTION), DROPOUT, nn.GELU)

    def forward(self, x_BD: Tensor, groups: Groups, there_B: Tensor) -> Tensor:
        """(B, 100); zero where the modality is absent, which nobody attends to."""
        x_GNd = self.encoder(groups.spread(self.opening(x_BD)), None, groups.spread(there_B))
        return self.mapping(groups.back(x_GNd)) * there_B[:, None]


class EmoCaps(nn.Module):
    """Sections 3.2 and 3.3: the capsule of an utterance is its text and the emotion vectors of all modalities; an LSTM
    both ways over the capsules of a dialogue, and a head.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sentence = Sentence(sizes)
        inputs = {TEXT: self.sentence.width, **sizes.widths}
        self.emoformers = nn.ModuleDict({name: Emoformer(width) for name, width in inputs.items()})
        capsule = self.sentence.width + EMOTION * len(inputs)
        self.context = OverGroups(capsule, HIDDEN, 2, DROPOUT, nn.LSTM)
        self.output = mlp((2 * HIDDEN, HIDDEN, sizes.outputs), DROPOUT)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        groups = dialogues_of(batch)
        vectors = {TEXT: self.sentence(batch)}
        for name in self.emoformers:
            if name != TEXT:
                vectors[name] = average_frame(*batch.frames(name))
        emotions = [self.emoformers[name](x_BD, groups, batch.present(name)) for name, x_BD in vectors.items()]
        return self.output(self.context(torch.cat([vectors[TEXT], *emotions], dim=-1), groups))
