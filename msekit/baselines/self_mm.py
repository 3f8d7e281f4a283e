"""Self-MM: Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning (Yu et al., AAAI 2021).

Labels of single modalities are made while training, from the distances of features to the centres of positive and
negative samples. Otherwise than in the released code: the text's encoder is frozen (there BERT, tuned, which carries
most of its score); a class without a sample keeps its centre, which there becomes NaN. Intensities only.

Shapes: B batch, N samples of the train split, H width of a feature.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from msekit.baselines.blocks import LSTMEncoder, Sentence
from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes
from msekit.baselines.stages import Group, Stage

LSTM_HIDDEN, VECTOR = 32, 32
FEATURE = {"multimodal": 128, "text": 32, "audio": 16, "vision": 32}
MULTIMODAL = "multimodal"
_TINY = 1e-6


class Head(nn.Module):
    """Linear, ReLU (the feature), Linear, ReLU, Linear: an intensity."""

    def __init__(self, width: int, feature: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.first = nn.Dropout(dropout), nn.Linear(width, feature)
        self.second, self.output = nn.Linear(feature, feature), nn.Linear(feature, 1)

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1), and the feature (B, H)."""
        feature_BH = torch.relu(self.first(self.dropout(x_BD)))
        return self.output(torch.relu(self.second(feature_BH))), feature_BH


class SampleMemory(nn.Module):
    """Feature, label and centres of one modality over the whole train split.

    Args:
        samples: N.
        width: H.
    """

    features: Tensor
    labels: Tensor
    seen: Tensor
    centres: Tensor

    def __init__(self, samples: int, width: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(samples, width))
        self.register_buffer("labels", torch.zeros(samples))
        self.register_buffer("seen", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("centres", torch.zeros(2, width))  # of negative, of positive samples

    def shift(self, feature_BH: Tensor) -> Tensor:
        """δ = (‖F − C⁻‖ − ‖F − C⁺‖) / (‖F − C⁺‖ + ε), (B,)."""
        below_B, above_B = ((feature_BH - centre_H).norm(dim=1) for centre_H in self.centres)
        return (below_B - above_B) / (above_B + _TINY)

    def store(self, index_B: Tensor, feature_BH: Tensor) -> None:
        """Keep features, and take the centres anew; a class without a sample keeps its own."""
        self.features[index_B], self.seen[index_B] = feature_BH, True
        for place, members_N in enumerate((self.labels < 0, self.labels > 0)):
            members_N = members_N & self.seen
            if members_N.any():
                self.centres[place] = self.features[members_N].mean(dim=0)


class SelfMM(nn.Module):
    """Sections 3.2 to 3.4. Loss: Σ_s mean(w_s |ŷ_s − y_s|), w_m = 1 and w_s = tanh |y_s − y_m| for a single modality s;
    y_s by `new_label`. All labels start at the sample's own and move from the second epoch on.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        assert sizes.span is not None
        self.modalities, self.limit = sizes.modalities, max(abs(end) for end in sizes.span)
        self.sentence = Sentence(sizes)
        self.encoders = nn.ModuleDict({name: LSTMEncoder(width, LSTM_HIDDEN) for name, width in sizes.widths.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(LSTM_HIDDEN, VECTOR) for name in sizes.widths})
        widths = {TEXT: self.sentence.width} | dict.fromkeys(sizes.widths, VECTOR)
        widths[MULTIMODAL] = sum(widths.values())
        self.heads = nn.ModuleDict(
            {name: Head(width, FEATURE[name], 0.1 if name == TEXT else 0.0) for name, width in widths.items()}
        )
        self.memories: Any = nn.ModuleDict({name: SampleMemory(sizes.samples, FEATURE[name]) for name in widths})
        self.epoch = 1
        self._latest: dict[str, Tensor] = {}

    def answers(self, batch: RivalBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Intensities (B, 1) and features (B, H), of each modality and of all together."""
        vectors = {TEXT: self.sentence(batch)}
        for name, encoder in self.encoders.items():
            frames_BLD, lengths_B = batch.frames(name)
            vectors[name] = self.vectors[name](encoder(frames_BLD, lengths_B)[1]) * batch.present(name)[:, None]
        vectors[MULTIMODAL] = torch.cat(list(vectors.values()), dim=-1)
        found = {name: self.heads[name](x_BD) for name, x_BD in vectors.items()}
        return {name: one for name, (one, _) in found.items()}, {name: one for name, (_, one) in found.items()}

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, 1)."""
        return self.answers(batch)[0][MULTIMODAL]

    def stages(self) -> list[Stage]:
        """One, with the learning rates of the released settings: vision's a tenth of the rest's, audio's five times."""
        factors = {"audio": 5.0, "vision": 0.1}
        parts = {name: [*self.encoders[name].parameters(), *self.vectors[name].parameters()] for name in self.encoders}
        apart = {id(parameter) for part in parts.values() for parameter in part}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        return [Stage(self.loss, [Group(rest), *(Group(part, factors[name]) for name, part in parts.items())])]

    def begin(self, epoch: int) -> None:
        """Labels move from the second epoch on, ever more slowly."""
        self.epoch = epoch

    def loss(self, batch: RivalBatch) -> Tensor:
        """The sum of all heads'; a sample without a modality does not count for that modality's."""
        answers, self._latest = self.answers(batch)
        total = (answers[MULTIMODAL][:, 0] - batch.truth).abs().mean()
        for name in self.modalities:
            memory = self.memories[name]
            own_B = torch.where(memory.seen[batch.index], memory.labels[batch.index], batch.truth)
            weight_B = torch.tanh((own_B - batch.truth).abs()) * batch.present(name)
            total = total + (weight_B * (answers[name][:, 0] - own_B).abs()).mean()
        return total

    def after(self, batch: RivalBatch) -> None:
        """New labels by the old centres, then the features, then the centres."""
        shift_m = self.memories[MULTIMODAL].shift(self._latest[MULTIMODAL])
        for name, memory in self.memories.items():
            index_B, truth_B = batch.index, batch.truth
            old_B = torch.where(memory.seen[index_B], memory.labels[index_B], truth_B)
            moves = self.epoch > 1 and name != MULTIMODAL
            if moves:
                new_B = new_label(truth_B, memory.shift(self._latest[name]), shift_m, self.limit)
                old_B = (self.epoch - 1) / (self.epoch + 1) * old_B + 2 / (self.epoch + 1) * new_B
            memory.labels[index_B] = old_B
            memory.store(index_B, self._latest[name].detach())


def new_label(truth_B: Tensor, shift_s: Tensor, shift_m: Tensor, limit: float) -> Tensor:
    """½ y_m δ_s/δ_m + ½ (y_m + δ_s − δ_m), within ± limit; the sample's own label where δ_m is 0."""
    safe_B = torch.where(shift_m.abs() < _TINY, 1.0, shift_m)
    new_B = 0.5 * truth_B * shift_s / safe_B + 0.5 * (truth_B + shift_s - shift_m)
    return torch.where(shift_m.abs() < _TINY, truth_B, new_B.clamp(-limit, limit))
