"""The published procedure, written from its description: the other side of every comparison of speed.

What it does: text padded to the published limit and audio and vision to the split's longest, LSTMs over packed
sequences, no bucketing by length, the whole sequence read at every step, logits and cross-entropy over the full
vocabulary at every position, AdamW with eps 1e-4; on a GPU fp16 autocast over fp16 weights with loss scaling (and,
as the authors ran it, CUDA_LAUNCH_BLOCKING=1 in the environment). At evaluation `generate` for up to 4 tokens, with the
batch size of training. What it does better than the published runs: padding is masked and positions skip it, so its
loss equals the kit's in fp32, and the prompt is the kit's short one.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from msekit.adapters.mse import ModalityEncoder, MSEAdapter
from msekit.data.batches.batch import Batch
from msekit.training.build import Parts


class Procedure:
    """One training run of the published procedure over a kit run's parts (same backbone, data, prompt, first weights).

    Args:
        parts: What the kit's `build` made, in the paper's layout.
        lr: Learning rate.
        new_tokens: Longest answer that `generate` writes.
    """

    def __init__(self, parts: Parts, lr: float = 5e-4, new_tokens: int = 4) -> None:
        self.parts, self.new_tokens = parts, new_tokens
        self.backbone, self.layout, self.labels = parts.backbone, parts.model.layout, parts.labels
        self.limit = parts.text_limit
        adapter = copy.deepcopy(parts.model.adapter)
        assert isinstance(adapter, MSEAdapter)
        self.adapter = adapter
        self.half = self.backbone.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.adapter.parameters(), lr=lr, eps=1e-4)
        self.scaler = torch.amp.GradScaler(enabled=self.half)
        self.frames = {
            split: tuple(int(lengths.max()) for lengths in (c.split.audio_lengths, c.split.vision_lengths))
            for split, c in parts.collators.items()
        }

    def batch(self, split: str, indices: list[int]) -> Batch:
        """Samples as they are padded in the published files."""
        batch = self.parts.collators[split](indices)
        batch.text_ids = F.pad(batch.text_ids, (0, self.limit - batch.text_ids.shape[1]))
        for name, longest in zip(("audio", "vision"), self.frames[split], strict=True):
            frames_BLD = getattr(batch, name)
            if frames_BLD is not None:
                padded = F.pad(frames_BLD, (0, 0, 0, max(longest - frames_BLD.shape[1], 0)))
                setattr(batch, name, padded)
        return batch.to(self.backbone.device)

    def content(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings (B, S, d) and mask (B, S) of everything before the answer; the text's padding stays in between."""
        embed, size = self.backbone.embed, len(batch.text_ids)
        text_BTd = embed(batch.text_ids)
        pseudo_BPd = self.pseudo_tokens(text_BTd, batch).to(text_BTd.dtype)
        opening, closing = (
            embed(torch.tensor(ids, device=text_BTd.device)).expand(size, -1, -1)
            for ids in (self.layout.opening, self.layout.closing)
        )
        joined = torch.cat([opening, pseudo_BPd, text_BTd, closing], dim=1)
        mask = torch.ones(joined.shape[:2], dtype=torch.long, device=joined.device)
        start = opening.shape[1] + pseudo_BPd.shape[1]
        mask[:, start : start + self.limit] = batch.text_mask
        return joined, mask

    def pseudo_tokens(self, text_BTd: Tensor, batch: Batch) -> Tensor:
        """The adapter's equations over packed sequences."""
        adapter = self.adapter
        assert adapter.text_guide_mixer is not None
        assert adapter.multi_scale_fusion is not None
        guide_Bh = adapter.text_guide_mixer.guide(text_BTd.float(), batch.text_mask)
        sum_Bh = guide_Bh * 0
        for encoder, frames, lengths in (
            (adapter.audio_encoder, batch.audio, batch.audio_lengths),
            (adapter.vision_encoder, batch.vision, batch.vision_lengths),
        ):
            if encoder is not None and frames is not None and lengths is not None:
                sum_Bh = sum_Bh + encode_packed(encoder, frames, lengths) * guide_Bh
        if adapter.conditioning != "paper":
            sum_Bh = F.layer_norm(sum_Bh, sum_Bh.shape[-1:])
        return adapter.projector(adapter.multi_scale_fusion(sum_Bh))

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the samples of the cross-entropy summed over a sample's label tokens."""
        content_BSd, mask_BS = self.content(batch)
        targets_BA = self.parts.model.targets[batch.label]
        answers = self.backbone.embed(targets_BA.clamp(min=0))
        inputs = torch.cat([content_BSd, answers], dim=1)
        mask = torch.cat([mask_BS, (targets_BA >= 0).long()], dim=1)
        labels = torch.cat([torch.full_like(mask_BS, -100), targets_BA], dim=1)
        logits = self.backbone.model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False
        ).logits.float()
        losses = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        return losses / len(batch.label)

    def step(self, indices: list[int]) -> float:
        """One optimiser step; its loss."""
        self.adapter.train()
        with torch.autocast(self.backbone.device.type, torch.float16, enabled=self.half):
            loss = self.loss(self.batch("train", indices))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()

    @torch.no_grad()
    def answer(self, split: str, indices: list[int]) -> list[str]:
        """What `generate` writes after the prompt, token by token."""
        self.adapter.eval()
        with torch.autocast(self.backbone.device.type, torch.float16, enabled=self.half):
            content_BSd, mask_BS = self.content(self.batch(split, indices))
            written = self.backbone.model.generate(
                inputs_embeds=content_BSd,
                attention_mask=mask_BS,
                max_new_tokens=self.new_tokens,
                do_sample=False,
                pad_token_id=self.backbone.end,
            )
        return self.backbone.tokenizer.batch_decode(written, skip_special_tokens=True)

    def tokens_read(self) -> int:
        """Columns of every training sequence, padding counted."""
        parts = (self.layout.opening, self.layout.closing, self.parts.model.targets[0])
        return sum(len(part) for part in parts) + self.adapter.projector.expand.out_features + self.limit


def encode_packed(encoder: ModalityEncoder | nn.Module, frames_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """An LSTM's state at the true length by packing, and its projection; zero for an absent modality."""
    lengths = lengths_B.cpu().clamp(min=1)
    packed = pack_padded_sequence(frames_BLD, lengths, batch_first=True, enforce_sorted=False)
    _, (state_1BH, _) = encoder.lstm(packed)  # type: ignore[operator]
    return encoder.projection(state_1BH[0]) * (lengths_B > 0)[:, None]  # type: ignore[operator]
