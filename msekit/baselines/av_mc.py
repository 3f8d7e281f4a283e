"""AV-MC: Make Acoustic and Visual Cues Matter: CH-SIMS v2.0 Dataset and AV-Mixup Consistent Module (Liu et al., ICMI
2022), the supervised form.

Needs a label of each modality by itself. `av-mixup` is the same with the sample's own label for all. BERT was frozen
there too; here the text is the state of another frozen LLM.

Shapes: B batch, P width of a modality's feature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msekit.adapters.simple import average_frame
from msekit.baselines.blocks import Sentence
from msekit.baselines.losses import losses_of
from msekit.baselines.rival_batch import AUDIO, TEXT, VISION, RivalBatch, Sizes

TEXT_VECTOR, VECTOR, INPUT_DROPOUT, DROPOUT = 64, 16, 0.1, 0.3
FEATURE = {TEXT: 32, AUDIO: 32, VISION: 64}
WEIGHT = {"all": 1.0, TEXT: 0.2, AUDIO: 0.8, VISION: 0.4}


class Normed(nn.Module):
    """Batch norm over the samples that have a modality; a training batch of one is normed as in testing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x_BD: Tensor, there_B: Tensor) -> Tensor:
        """(B, D), zero where it is absent."""
        normed = torch.zeros_like(x_BD)
        some = x_BD[there_B]
        if len(some) > 1 or not self.training:
            normed[there_B] = self.norm(some) if len(some) else some
        else:
            self.norm.eval()
            normed[there_B] = self.norm(some) if len(some) else some
            self.norm.train()
        return normed


class AVMC(nn.Module):
    """Section 4: a tower for each modality, whose features are fused; loss over four labels on the batch as it is, with
    the sound of two samples mixed, and with their pictures mixed.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modalities, self.span = sizes.modalities, sizes.span
        self.sentence = Sentence(sizes)
        self.text = nn.Linear(self.sentence.width, TEXT_VECTOR)
        self.norms = nn.ModuleDict({name: Normed(width) for name, width in sizes.widths.items()})
        self.towers = nn.ModuleDict({name: _three_layers(width) for name, width in sizes.widths.items()})
        inputs = {TEXT: TEXT_VECTOR} | dict.fromkeys(sizes.widths, VECTOR)
        self.features = nn.ModuleDict({name: _feature(width, FEATURE[name]) for name, width in inputs.items()})
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURE[name], sizes.outputs) for name in inputs})
        joined = sum(FEATURE[name] for name in inputs)
        self.fusion = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(joined, 16), nn.Linear(16, 16), nn.Linear(16, sizes.outputs)
        )

    def means(self, batch: RivalBatch) -> dict[str, Tensor]:
        """The average frame of each modality, (B, D)."""
        return {name: average_frame(*batch.frames(name)) for name in self.norms}

    def answers(self, batch: RivalBatch, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """(B, O) of each modality, and of `all`."""
        vectors = {TEXT: self.text(self.sentence(batch))}
        for name, x_BD in means.items():
            vectors[name] = self.towers[name](self.norms[name](x_BD, batch.present(name)))
        features = {name: self.features[name](x) * batch.present(name)[:, None] for name, x in vectors.items()}
        found = {name: self.heads[name](x) for name, x in features.items()}
        found["all"] = self._within(self.fusion(torch.cat(list(features.values()), dim=-1)))
        return found

    def _within(self, outputs_BO: Tensor) -> Tensor:
        """An intensity by a sigmoid over its range; class scores as they are."""
        if self.span is None:
            return outputs_BO
        low, high = self.span
        return low + (high - low) * torch.sigmoid(outputs_BO)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        return self.answers(batch, self.means(batch))["all"]

    def loss(self, batch: RivalBatch) -> Tensor:
        """Three passes; the shares of the mixtures are drawn anew for each batch, λ ~ Beta(1, 1)."""
        means = self.means(batch)
        loss = self.one_pass(batch, means)
        for name in self.norms:
            share, partner_B = torch.rand(()), torch.randperm(len(batch.index)).to(batch.index.device)
            loss = loss + self.mixed_pass(batch, means, name, float(share), partner_B)
        return loss

    def one_pass(self, batch: RivalBatch, means: dict[str, Tensor]) -> Tensor:
        """Σ_m w_m · loss of m by its own label."""
        answers = self.answers(batch, means)
        return sum((self._loss(batch, answers, name) for name in answers), means[next(iter(means))].sum() * 0)

    def mixed_pass(
        self, batch: RivalBatch, means: dict[str, Tensor], mixed: str, share: float, partner_B: Tensor
    ) -> Tensor:
        """The same with one modality mixed; its head and the fusion answer to both labels, by their shares.

        Where either of two samples lacks the modality, it is not mixed, and counts with its own label alone.
        """
        x_BD = means[mixed]
        both_B = batch.present(mixed) & batch.present(mixed)[partner_B]
        share_B = torch.where(both_B, share, 1.0)
        blend_BD = share_B[:, None] * x_BD + (1 - share_B[:, None]) * x_BD[partner_B]
        answers = self.answers(batch, means | {mixed: blend_BD})
        total = x_BD.sum() * 0
        for name in answers:
            if name not in (mixed, "all"):
                total = total + self._loss(batch, answers, name)
                continue
            own_B = self._each(batch, answers, name)
            other_B = self._each(batch, answers, name, partner_B)
            total = total + WEIGHT[name] * (share_B * own_B + (1 - share_B) * other_B).mean()
        return total

    def _loss(self, batch: RivalBatch, answers: dict[str, Tensor], name: str) -> Tensor:
        return WEIGHT[name] * self._each(batch, answers, name).mean()

    def _each(self, batch: RivalBatch, answers: dict[str, Tensor], name: str, order_B: Tensor | None = None) -> Tensor:
        """(B,) loss of each sample by its own label, or by that of the sample in `order_B`; 0 where it is absent."""
        truth_B = batch.truth if name == "all" else batch.truth_of(name)
        truth_B = truth_B if order_B is None else truth_B[order_B]
        losses = losses_of(answers[name], truth_B)
        return losses if name == "all" else losses * batch.present(name)


def _three_layers(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(INPUT_DROPOUT)]
    for before in (width, VECTOR, VECTOR):
        layers += [nn.Linear(before, VECTOR), nn.ReLU()]
    return nn.Sequential(*layers)


def _feature(width: int, feature: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(DROPOUT), nn.Linear(width, feature), nn.ReLU(), nn.Linear(feature, feature), nn.ReLU()
    )
