"""The honest part of two systems that write their answer: UniMSE (Hu et al., EMNLP 2022) and UniSA (Li et al., ACM MM
2023), each before a frozen LLM that writes the labels of one data set.

`unimse-adapter`: UniMSE's pseudo-multimodal adapter behind the feed-forward layers of the last three decoder layers.
Left out: T5 and its two tuned layers, one training set out of four corpora, labels borrowed between them, contrast (off
in the released settings). It starts as the identity, or a frozen LLM breaks.

`unisa-input`: UniSA's input, a Linear of each frame as a slot between learned tags. Left out: eleven corpora, two
stages of pre-training, the tuned language model, speakers and context in words.

Prompt, labels and their scores are the plug-in's (`model/`): cross-entropy of the label's tokens; an intensity is the
mean of the distribution over the grid.

Shapes: B batch, S columns, L frames, D features of a frame, d width of the LLM, e width of audio and vision together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.backbones.passes.agree import decoder_layers
from msekit.baselines.blocks import LSTMEncoder
from msekit.baselines.rival_batch import RivalBatch, Sizes, real_steps
from msekit.baselines.texts import OfLLM
from msekit.data.batches.batch import Batch
from msekit.errors import MsekitError
from msekit.model.assemble import assemble, text_scale
from msekit.model.mse_model import MSEModel

HIDDEN, VECTOR, NARROW, LAYERS = 32, 32, 64, 3
"""Of `unimse-adapter`: LSTM, vector of a modality, the adapter's middle, adapted layers."""
SLOTS = 16
"""Of `unisa-input`, a modality: as many as frames are left of a sequence (`Entry.frames`)."""


class WrittenLabels(nn.Module):
    """An adapter and the frozen LLM that writes the label.

    Args:
        of_llm: The LLM and the data set.
        adapter: What stands before the text.
    """

    def __init__(self, of_llm: OfLLM, adapter: Adapter) -> None:
        super().__init__()
        self.model: MSEModel = assemble(of_llm.backbone, adapter, of_llm.spec, "paper", of_llm.spec.text_limit)
        self._cue = of_llm.cue

    def as_read(self, batch: RivalBatch) -> Batch:
        """The batch as the plug-in's model reads it: without the cue, whose place the prompt takes."""
        lengths_B = batch.text_lengths - self._cue
        own_BT = real_steps(lengths_B, batch.text_ids.shape[1])
        labels = self.model.labels.indices(batch.truth.double().cpu().numpy())
        return Batch(
            batch.index,
            batch.text_ids * own_BT,
            lengths_B,
            batch.audio,
            batch.audio_lengths,
            batch.vision,
            batch.vision_lengths,
            label=torch.from_numpy(labels).to(lengths_B.device),
            weight=torch.ones(len(lengths_B), device=lengths_B.device),
        )

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O): log-probabilities of the classes, or the mean intensity; without a gradient."""
        edges = self.model.score(self.as_read(batch)).cpu().numpy()
        labels = self.model.labels
        if labels.task == "erc":
            return torch.from_numpy(labels.log_probabilities(edges)).float().to(batch.truth.device)
        means = labels.predict(edges, "mean")[:, None]
        return torch.from_numpy(means).float().to(batch.truth.device)

    def loss(self, batch: RivalBatch) -> Tensor:
        """Cross-entropy summed over the true label's tokens, the mean over the batch."""
        return self.model(self.as_read(batch)) / len(batch.index)


class Slots(Adapter):
    """`unisa-input`: for each modality a learned tag, SLOTS slots, a learned tag; a slot without a frame is zero."""

    def __init__(self, sizes: Sizes, text_dim: int, scale: float) -> None:
        super().__init__()
        self.widths = sizes.widths
        self.audio_dim, self.vision_dim = sizes.widths.get("audio", 0), sizes.widths.get("vision", 0)
        self.pseudo_tokens = len(sizes.widths) * (SLOTS + 2)
        self.maps = nn.ModuleDict({name: nn.Linear(width, text_dim) for name, width in sizes.widths.items()})
        self.tags = nn.ParameterDict({name: nn.Parameter(torch.randn(2, text_dim) * scale) for name in sizes.widths})
        for name, width in sizes.widths.items():
            weight, bias = self.maps[name].parameters()
            nn.init.normal_(weight, std=scale / width**0.5)
            nn.init.zeros_(bias)

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Pseudo tokens, (B, P, d)."""
        parts: list[Tensor] = []
        given = {"audio": (audio, audio_lengths), "vision": (vision, vision_lengths)}
        for name in self.widths:
            frames_BLD, lengths_B = given[name]
            assert frames_BLD is not None
            assert lengths_B is not None
            slots_BLd = self.maps[name](frames_BLD) * real_steps(lengths_B, frames_BLD.shape[1])[..., None]
            slots_BLd = F.pad(slots_BLd[:, :SLOTS], (0, 0, 0, max(0, SLOTS - slots_BLd.shape[1])))
            opening, closing = (tag.expand(len(slots_BLd), 1, -1) for tag in self.tags[name])
            parts += [opening, slots_BLd, closing]
        return torch.cat(parts, dim=1)


class Nothing(Adapter):
    """No pseudo tokens at all."""

    audio_dim = vision_dim = pseudo_tokens = 0

    def forward(self, text_embeddings: Tensor, *_: Any) -> Tensor:
        """(B, 0, d)."""
        return text_embeddings[:, :0]


class FeedForwardAdapter(nn.Module):
    """UniMSE's section 3.4: x = [h; v; a], then W_o (x + W_u σ(W_d x)), in the place of h.

    Args:
        width: d.
        extra: e.
    """

    def __init__(self, width: int, extra: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width + extra, NARROW), nn.Linear(NARROW, width + extra)
        self.out = nn.Linear(width + extra, width)
        for tensor in (self.up.weight, self.up.bias, self.out.bias):
            nn.init.zeros_(tensor)
        with torch.no_grad():
            self.out.weight.copy_(torch.eye(width, width + extra))

    def forward(self, h_BSd: Tensor, extra_Be: Tensor) -> Tensor:
        """(B, S, d)."""
        x = torch.cat([h_BSd.float(), extra_Be[:, None].expand(-1, h_BSd.shape[1], -1)], dim=-1)
        return self.out(x + self.up(torch.sigmoid(self.down(x)))).to(h_BSd.dtype)


class UniMSEAdapter(nn.Module):
    """`unimse-adapter`: an LSTM for each modality, whose vectors the adapters of the last layers read at every token.

    Args:
        sizes: Of the data.
        of_llm: The LLM, which takes no shorter way past its layers, and the data set.
    """

    def __init__(self, sizes: Sizes, of_llm: OfLLM) -> None:
        super().__init__()
        backbone = of_llm.backbone
        layers = list(decoder_layers(backbone.model) or [])[-LAYERS:]
        if not layers or not all(isinstance(getattr(layer, "mlp", None), nn.Module) for layer in layers):
            raise MsekitError("this architecture names no feed-forward layers `mlp`", where=backbone.name)
        assert not backbone.passes.uses, "a shorter way may pass the layers by"
        self._feeds: tuple[nn.Module, ...] = tuple(layer.mlp for layer in layers)  # type: ignore[misc]
        self.encoders = nn.ModuleDict({name: LSTMEncoder(width, HIDDEN) for name, width in sizes.widths.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(HIDDEN, VECTOR) for name in sizes.widths})
        extra = VECTOR * len(sizes.widths)
        self.adapters = nn.ModuleList(FeedForwardAdapter(backbone.text_dim, extra) for _ in layers)
        self.written = WrittenLabels(of_llm, Nothing())

    @contextmanager
    def _adapted(self, batch: RivalBatch) -> Iterator[None]:
        """Within, the LLM's last layers are adapted to the batch's audio and vision."""
        vectors = [
            self.vectors[name](encoder(*batch.frames(name))[1]) * batch.present(name)[:, None]
            for name, encoder in self.encoders.items()
        ]
        extra_Be = torch.cat(vectors, dim=-1)
        handles = [
            feed.register_forward_hook(lambda _, args, output, adapter=adapter: adapter(output, extra_Be))
            for feed, adapter in zip(self._feeds, self.adapters, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        with self._adapted(batch):
            return self.written(batch)

    def loss(self, batch: RivalBatch) -> Tensor:
        """The written label's."""
        with self._adapted(batch):
            return self.written.loss(batch)


def unisa_input(sizes: Sizes, of_llm: OfLLM) -> WrittenLabels:
    """`unisa-input`, with fresh weights."""
    backbone = of_llm.backbone
    return WrittenLabels(of_llm, Slots(sizes, backbone.text_dim, text_scale(backbone)))
