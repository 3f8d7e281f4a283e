"""MMIM: Improving Multimodal Fusion with Hierarchical Mutual Information Maximization (Han et al., EMNLP 2021).

Otherwise than in the released code: the text's encoder is frozen and a Linear with a norm stands on it (there BERT is
tuned); the Gaussian has its −½ log σ² term, without which the bound says nothing, and log σ² is bounded by tanh; a
covariance has a ridge. For classes instead of intensities, a Gaussian for each class instead of each sign.

Shapes: B batch, H width of a vector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from msekit.baselines.blocks import LSTMEncoder, Sentence, mlp
from msekit.baselines.losses import gaussian_likelihood, info_nce, log_volume, task_loss
from msekit.baselines.rival_batch import TEXT, RivalBatch, Sizes
from msekit.baselines.stages import Group, Stage

TEXT_WIDTH, VECTOR, HIDDEN, FUSED, VOLUME = 128, 16, 16, 128, 4
ALPHA, BETA, DROPOUT = 0.1, 0.1, 0.1
FEWEST = 5
"""Samples of a class from which its covariance is taken."""


class Bound(nn.Module):
    """Eqs. 5 to 8: q(y | x), a Gaussian whose mean and variance are functions of x, and the map under the entropy of y,
    which no optimiser moves in the released code either.
    """

    def __init__(self, text: int, width: int) -> None:
        super().__init__()
        self.mean, self.spread = mlp((text, HIDDEN, width)), mlp((text, HIDDEN, width))
        self.volume = nn.Linear(width, VOLUME).requires_grad_(False)

    def likelihood(self, text_BH: Tensor, y_BH: Tensor) -> Tensor:
        """log q(y | x), the batch's mean."""
        return gaussian_likelihood(self.mean(text_BH), torch.tanh(self.spread(text_BH)), y_BH)

    def entropy(self, y_NH: Tensor, class_N: Tensor) -> Tensor:
        """½ the mean of log det Σ over the classes that have samples enough; 0 where none has."""
        mapped = torch.tanh(self.volume(y_NH))
        sizes = [(class_N == one).sum() for one in class_N.unique()]
        volumes = [
            log_volume(mapped[class_N == one])
            for one, size in zip(class_N.unique(), sizes, strict=True)
            if size >= FEWEST
        ]
        return 0.5 * torch.stack(volumes).mean() if volumes else mapped.sum() * 0


class MMIM(nn.Module):
    """Section 3. Every epoch the bounds are tightened first (maximum likelihood), then all else minimises
    task + α·NCE − β·likelihood − β·entropy; NCE predicts each modality's vector from the fused one (eqs. 10 to 13).
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modalities, self.others = sizes.modalities, tuple(sizes.widths)
        self.sentence = Sentence(sizes)
        self.text = nn.Sequential(nn.Linear(self.sentence.width, TEXT_WIDTH), nn.LayerNorm(TEXT_WIDTH))
        self.encoders = nn.ModuleDict(
            {name: LSTMEncoder(width, HIDDEN, two_way=True) for name, width in sizes.widths.items()}
        )
        self.vectors = nn.ModuleDict({name: nn.Linear(2 * HIDDEN, VECTOR) for name in self.others})
        self.dropout = nn.Dropout(DROPOUT)
        self.fuse = nn.Sequential(
            nn.Linear(TEXT_WIDTH + VECTOR * len(self.others), FUSED), nn.Tanh(), nn.Linear(FUSED, FUSED), nn.Tanh()
        )
        self.output = nn.Linear(FUSED, sizes.outputs)
        self.bounds: Any = nn.ModuleDict({name: Bound(TEXT_WIDTH, VECTOR) for name in self.others})
        widths = {TEXT: TEXT_WIDTH} | dict.fromkeys(self.others, VECTOR)
        self.predict = nn.ModuleDict({name: nn.Linear(FUSED, width) for name, width in widths.items()})
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def encoded(self, batch: RivalBatch) -> dict[str, Tensor]:
        """Each modality's vector, zero where a sample lacks it."""
        vectors = {TEXT: self.text(self.sentence(batch))}
        for name, encoder in self.encoders.items():
            vectors[name] = self.vectors[name](encoder(*batch.frames(name))[1]) * batch.present(name)[:, None]
        return vectors

    def fused(self, vectors: dict[str, Tensor]) -> Tensor:
        """Z, (B, 128)."""
        return self.fuse(self.dropout(torch.cat(list(vectors.values()), dim=-1)))

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        return self.output(self.fused(self.encoded(batch)))

    def begin(self, epoch: int) -> None:
        """The memory of the batch before begins empty."""
        self._before = {}

    def stages(self) -> list[Stage]:
        """The bounds by themselves, then everything else."""
        bounds = [parameter for parameter in self.bounds.parameters() if parameter.requires_grad]
        apart = {id(parameter) for parameter in self.bounds.parameters()}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        return [Stage(self.bound_loss, [Group(bounds)]), Stage(self.loss, [Group(rest)])]

    def bound_loss(self, batch: RivalBatch) -> Tensor:
        """− likelihood of every bound, over the samples that have its modality."""
        with torch.no_grad():
            vectors = self.encoded(batch)
        return -self.likelihoods(batch, vectors)

    def likelihoods(self, batch: RivalBatch, vectors: dict[str, Tensor]) -> Tensor:
        """The sum over the bounds."""
        total = vectors[TEXT].sum() * 0
        for name, bound in self.bounds.items():
            there_B = batch.present(name)
            if there_B.any():
                total = total + bound.likelihood(vectors[TEXT][there_B], vectors[name][there_B])
            else:
                total = total + sum(parameter.sum() * 0 for parameter in bound.parameters())
        return total

    def loss(self, batch: RivalBatch) -> Tensor:
        """Task, contrast, bounds and entropies; see the class."""
        vectors = self.encoded(batch)
        fused_BH = self.fused(vectors)
        outputs_BO = self.output(fused_BH)
        class_B = batch.truth if outputs_BO.shape[1] > 1 else (batch.truth > 0).float()
        contrast = vectors[TEXT].sum() * 0
        entropy = contrast
        for name in self.modalities:
            there_B = batch.present(name)
            if there_B.sum() >= 2:
                contrast = contrast + info_nce(vectors[name][there_B], self.predict[name](fused_BH[there_B]))
            if name == TEXT:
                continue
            now = (vectors[name][there_B], class_B[there_B])
            before = self._before.get(name, (now[0][:0].detach(), now[1][:0]))
            entropy = entropy + self.bounds[name].entropy(
                torch.cat([before[0], now[0]]), torch.cat([before[1], now[1]])
            )
            self._before[name] = (now[0].detach(), now[1])
        bounds = self.likelihoods(batch, vectors)
        return task_loss(outputs_BO, batch.truth) + ALPHA * contrast - BETA * bounds - BETA * entropy
