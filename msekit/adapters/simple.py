"""Three plain adapters, which show what TGM and MSF are worth: linear, mlp and prompt.

`linear` and `mlp` read the average frame of each modality; `prompt` reads nothing: P learned embeddings.
Shapes: B batch, L frames, D features of a frame, d text width, h = 256, P pseudo tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.adapters.mse import PseudoTokenProjector
from msekit.adapters.sizes import AdapterSpec


def average_frame(frames_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """The mean over a sample's real frames, (B, D); zero where the modality is absent."""
    lengths_B1 = lengths_B.to(frames_BLD.device)[:, None]
    real_BL1 = (torch.arange(frames_BLD.shape[1], device=frames_BLD.device)[None] < lengths_B1)[..., None]
    return (frames_BLD * real_BL1).sum(dim=1) / lengths_B1.clamp(min=1)


class PooledAdapter(Adapter):
    """`linear`: one linear layer per modality, from its average frame to the pseudo tokens; the two are added.

    `mlp`: one to h instead; their sum goes through a GELU and the paper's projector.

    Args:
        text_dim: d.
        audio_dim: Features per audio frame; 0 where there is no audio.
        vision_dim: Features per vision frame; 0 where there is no vision.
        pseudo_tokens: P.
        hidden: h for `mlp`; None for `linear`.
    """

    def __init__(
        self, text_dim: int, audio_dim: int, vision_dim: int, pseudo_tokens: int, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.audio_dim, self.vision_dim = audio_dim, vision_dim
        self.pseudo_tokens, self.text_dim = pseudo_tokens, text_dim
        self.width = hidden or pseudo_tokens * text_dim
        self.audio = nn.Linear(audio_dim, self.width) if audio_dim else None
        self.vision = nn.Linear(vision_dim, self.width) if vision_dim else None
        self.projector = PseudoTokenProjector(hidden, text_dim, pseudo_tokens) if hidden else None

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Pseudo tokens, (B, P, d); see `Adapter.forward`."""
        sum_BW = text_embeddings.new_zeros(len(text_embeddings), self.width)
        for layer, frames, lengths in ((self.audio, audio, audio_lengths), (self.vision, vision, vision_lengths)):
            if layer is not None and frames is not None and lengths is not None:
                present_B1 = (lengths.to(frames.device) > 0)[:, None]
                sum_BW = sum_BW + layer(average_frame(frames, lengths)) * present_B1
        if self.projector is not None:
            return self.projector(nn.functional.gelu(sum_BW))
        return sum_BW.view(-1, self.pseudo_tokens, self.text_dim)


class PromptAdapter(Adapter):
    """`prompt`: P learned embeddings, the same for every sample; neither audio nor vision.

    Args:
        text_dim: d.
        pseudo_tokens: P.
        text_scale: RMS of the first embeddings; that of the backbone's own embeddings is a natural choice.
    """

    audio_dim = vision_dim = 0

    def __init__(self, text_dim: int, pseudo_tokens: int, text_scale: float = 1.0) -> None:
        super().__init__()
        self.pseudo_tokens = pseudo_tokens
        self.tokens = nn.Parameter(torch.randn(pseudo_tokens, text_dim) * text_scale)

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Pseudo tokens, (B, P, d): the inputs only tell B."""
        return self.tokens.expand(len(text_embeddings), -1, -1)


def make_linear(spec: AdapterSpec) -> PooledAdapter:
    """`linear` of a spec, with fresh weights."""
    return PooledAdapter(spec.text_dim, spec.audio_dim, spec.vision_dim, spec.pseudo_tokens)


def make_mlp(spec: AdapterSpec) -> PooledAdapter:
    """`mlp` of a spec, with fresh weights."""
    return PooledAdapter(spec.text_dim, spec.audio_dim, spec.vision_dim, spec.pseudo_tokens, spec.hidden)


def make_prompt(spec: AdapterSpec) -> PromptAdapter:
    """`prompt` of a spec, with fresh embeddings of the size of the backbone's own."""
    return PromptAdapter(spec.text_dim, spec.pseudo_tokens, spec.text_scale)
