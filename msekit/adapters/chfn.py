"""CHFN (Guo et al. 2022): words adjusted by attention to the unaligned audio and vision, over a frozen LLM.

The paper compares with it in Table 5 and prints no module. Its 50.79M parameters on ChatGLM3-6B and MOSEI fit three
d x d maps without biases and two modality projections with biases (50,786,304): queries from the words, keys and values
from both modalities joined in time. This file builds that. Inferred, not printed: one attention head, the sum with the
word embedding, and that a shift is at most as long as its word (as in MAG), without which a frozen LLM reads noise at
first. Attention needs no alignment of frames to words.

Shapes: B batch, T text tokens, L frames, D features of a frame, d text width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.adapters.mag import bounded
from msekit.adapters.sizes import AdapterSpec


class CHFNAdapter(Adapter):
    """Shifts every word's embedding by what it attends to among all frames of both modalities.

    Args:
        text_dim: d.
        audio_dim: Features per audio frame; 0 where there is no audio.
        vision_dim: Features per vision frame; 0 where there is no vision.
    """

    rewrites_text = True
    pseudo_tokens = 0

    def __init__(self, text_dim: int, audio_dim: int, vision_dim: int) -> None:
        super().__init__()
        self.audio_dim, self.vision_dim = audio_dim, vision_dim
        self.audio_projection = nn.Linear(audio_dim, text_dim) if audio_dim else None
        self.vision_projection = nn.Linear(vision_dim, text_dim) if vision_dim else None
        self.query = nn.Linear(text_dim, text_dim, bias=False)
        self.key = nn.Linear(text_dim, text_dim, bias=False)
        self.value = nn.Linear(text_dim, text_dim, bias=False)

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """The rewritten text, (B, T, d); see `Adapter.forward`."""
        size, _, width = text_embeddings.shape
        # a frame of zeros that every word attends to: without it, a sample without audio and vision would attend to an
        # empty set, which gives NaN; with it, such a sample's shift is zero
        frames_BLd = [text_embeddings.new_zeros(size, 1, width)]
        real_BL = [torch.ones(size, 1, dtype=torch.bool, device=text_embeddings.device)]
        for projection, frames, lengths in (
            (self.audio_projection, audio, audio_lengths),
            (self.vision_projection, vision, vision_lengths),
        ):
            if projection is not None and frames is not None and lengths is not None:
                frames_BLd.append(projection(frames))
                steps_L = torch.arange(frames.shape[1], device=frames.device)
                real_BL.append(steps_L[None] < lengths.to(frames.device)[:, None])
        joined_BLd, mask_BL = torch.cat(frames_BLd, dim=1), torch.cat(real_BL, dim=1)
        shift_BTd = F.scaled_dot_product_attention(
            self.query(text_embeddings), self.key(joined_BLd), self.value(joined_BLd), attn_mask=mask_BL[:, None, :]
        )
        return text_embeddings + bounded(shift_BTd, text_embeddings)


def make_chfn(spec: AdapterSpec) -> CHFNAdapter:
    """The adapter of a spec, with fresh weights."""
    return CHFNAdapter(spec.text_dim, spec.audio_dim, spec.vision_dim)
