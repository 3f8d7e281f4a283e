"""The MSE-Adapter, the paper's Figure 2 and section "MSE-Adapter".

Shapes: B batch, T text tokens, L frames of a modality, D features of a frame, d text width of the backbone (the
paper's d_t), H hidden size of a modality's LSTM, h = 256 width of the mixture, P pseudo tokens.

The trainable parameters are exactly those of Table 1. `conditioning` adds none: `paper` is the published equations;
`unit` scales the text mean to unit RMS and normalises the mixed vector, without which the pseudo tokens hardly
depend on the audio and vision when training starts; `centred` first subtracts the train split's average from the text
mean, so that only the differences between texts guide the modalities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.ablations import WHOLE, AdapterParts, Input
from msekit.adapters.interface import Adapter
from msekit.adapters.sizes import SCALES, AdapterSpec, Conditioning


class ModalityEncoder(nn.Module):
    """One modality's sequence → its projected vector: a one-direction LSTM, and W_a or W_v on its last true state.

    Args:
        width: D, features per frame.
        hidden: H, size of the LSTM's state.
        mixed: h, width the state is projected to.
    """

    def __init__(self, width: int, hidden: int, mixed: int) -> None:
        super().__init__()
        self.width = width
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.projection = nn.Linear(hidden, mixed)

    def forward(self, frames_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Encode; a sample of length 0 (the modality is absent) gives the zero vector, so no bias leaks in.

        Args:
            frames_BLD: Features; what lies beyond a sample's length has no effect.
            lengths_B: True lengths, 0 for an absent modality.

        Returns:
            Projected states, (B, h).
        """
        lengths_B = lengths_B.to(frames_BLD.device)
        if frames_BLD.shape[1] == 0:
            frames_BLD = frames_BLD.new_zeros(frames_BLD.shape[0], 1, frames_BLD.shape[2])
        states_BLH, _ = self.lstm(frames_BLD)  # causal: the state at the true length never sees the padding after it
        last_B11 = (lengths_B - 1).clamp(min=0)[:, None, None]
        state_BH = states_BLH.gather(1, last_B11.expand(-1, 1, states_BLH.shape[2])).squeeze(1)
        return self.projection(state_BH) * (lengths_B > 0)[:, None]


class StateProjection(nn.Module):
    """W_a or W_v alone, for a random vector in the place of an LSTM's state (`no-audio-vision`).

    Args:
        hidden: H, size of the state.
        mixed: h.
    """

    def __init__(self, hidden: int, mixed: int) -> None:
        super().__init__()
        self.width = hidden
        self.projection = nn.Linear(hidden, mixed)

    def forward(self, state_B1H: Tensor, lengths_B: Tensor) -> Tensor:
        """Project the only frame, the state itself: (B, 1, H), (B,) → (B, h)."""
        return self.projection(state_B1H[:, 0]) * (lengths_B > 0)[:, None].to(state_B1H.device)


class TextGuideMixer(nn.Module):
    """TGM: the Hadamard product of a modality's vector with the projected mean of the text (W_t).

    Args:
        text_dim: d, width of the text embeddings.
        mixed: h.
        conditioning: `unit` scales the text mean to unit RMS before W_t; `centred` subtracts `text_center` first.
    """

    text_center: Tensor | None
    """(d,) average text mean of the train split, set once before training; saved with the adapter, never trained."""

    def __init__(self, text_dim: int, mixed: int, conditioning: Conditioning) -> None:
        super().__init__()
        self.conditioning = conditioning
        self.text_projection = nn.Linear(text_dim, mixed)
        self.register_buffer("text_center", torch.zeros(text_dim) if conditioning == "centred" else None)

    def guide(self, text_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """Project the mean over the real text tokens: (B, T, d), (B, T) → (B, h). An empty text has mean zero."""
        weights_BT1 = mask_BT.unsqueeze(-1).to(text_BTd.dtype)
        mean_Bd = (text_BTd * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1).clamp(min=1)
        if self.text_center is not None:
            mean_Bd = mean_Bd - self.text_center
        if self.conditioning != "paper":
            mean_Bd = F.rms_norm(mean_Bd, mean_Bd.shape[-1:], eps=1e-12)
        return self.text_projection(mean_Bd)

    def forward(self, modality_Bh: Tensor, guide_Bh: Tensor) -> Tensor:
        """Mix one modality with the text, (B, h) each."""
        return modality_Bh * guide_Bh


class MultiScaleFusion(nn.Module):
    """MSF: three MLPs of different widths over the summed mixtures, joined by a 1x1 convolution.

    The hidden widths are d/8, d/16 and d/32 of the text width: what Table 1's counts imply (the formula prints h/k).

    Args:
        mixed: h.
        text_dim: d.
    """

    def __init__(self, mixed: int, text_dim: int) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(mixed, text_dim // scale), nn.GELU(), nn.Linear(text_dim // scale, mixed))
            for scale in SCALES
        )
        self.mix = nn.Conv1d(len(SCALES), 1, kernel_size=1)

    def forward(self, sum_Bh: Tensor) -> Tensor:
        """Fuse, (B, h) → (B, h)."""
        scales_BSh = torch.stack([mlp(sum_Bh) for mlp in self.mlps], dim=1)
        return self.mix(scales_BSh).squeeze(1)


class PseudoTokenProjector(nn.Module):
    """The fused vector → pseudo tokens: W_3 to the text width, W_4 from one token to P.

    Args:
        mixed: h.
        text_dim: d.
        pseudo_tokens: P.
    """

    def __init__(self, mixed: int, text_dim: int, pseudo_tokens: int) -> None:
        super().__init__()
        self.to_text_dim = nn.Linear(mixed, text_dim)
        self.expand = nn.Linear(1, pseudo_tokens)

    def forward(self, fused_Bh: Tensor) -> Tensor:
        """Project and expand, (B, h) → (B, P, d)."""
        return self.expand(self.to_text_dim(fused_Bh).unsqueeze(-1)).transpose(1, 2)


def encoder_of(source: Input, width: int, hidden: int, mixed: int) -> ModalityEncoder | StateProjection | None:
    """What encodes one modality; None for data without it and where it is left out."""
    if not width or source == "absent":
        return None
    return StateProjection(hidden, mixed) if source == "random" else ModalityEncoder(width, hidden, mixed)


class MSEAdapter(Adapter):
    """Audio and vision sequences, guided by the text, → pseudo tokens for a frozen LLM.

    Args:
        text_dim: d, width of the backbone's embeddings.
        audio_dim: Features per audio frame; 0 where the data set has no audio (no encoder is built).
        vision_dim: Features per vision frame; 0 where the data set has no vision.
        audio_hidden: State size of the audio LSTM.
        vision_hidden: State size of the vision LSTM.
        pseudo_tokens: P.
        hidden: h, width of the mixture.
        conditioning: `paper`, `unit` or `centred`; see the module's docstring.
        learned_absent: Train a vector per modality that takes the projected vector's place where the modality is
            absent from a sample or has no encoder. It starts at zero, the value without it.
        parts: What is built of it; the rows of Table 4 leave some out.
    """

    def __init__(
        self,
        text_dim: int,
        audio_dim: int,
        vision_dim: int,
        audio_hidden: int,
        vision_hidden: int,
        pseudo_tokens: int,
        hidden: int = 256,
        conditioning: Conditioning = "paper",
        learned_absent: bool = False,
        parts: AdapterParts = WHOLE,
    ) -> None:
        super().__init__()
        self.conditioning, self.hidden, self.pseudo_tokens = conditioning, hidden, pseudo_tokens
        stand_ins = {name: nn.Parameter(torch.zeros(hidden)) for name in ("audio", "vision")}
        self.absent = nn.ParameterDict(stand_ins) if learned_absent else None
        self.audio_encoder = encoder_of(parts.audio, audio_dim, audio_hidden, hidden)
        self.vision_encoder = encoder_of(parts.vision, vision_dim, vision_hidden, hidden)
        self.audio_dim = self.audio_encoder.width if self.audio_encoder else 0
        self.vision_dim = self.vision_encoder.width if self.vision_encoder else 0
        self.text_guide_mixer = TextGuideMixer(text_dim, hidden, conditioning) if parts.tgm else None
        self.multi_scale_fusion = MultiScaleFusion(hidden, text_dim) if parts.msf else None
        self.projector = PseudoTokenProjector(hidden, text_dim, pseudo_tokens)

    def forward(
        self,
        text_embeddings: Tensor,
        text_mask: Tensor,
        audio: Tensor | None,
        audio_lengths: Tensor | None,
        vision: Tensor | None,
        vision_lengths: Tensor | None,
    ) -> Tensor:
        """Make the pseudo tokens, (B, P, d); see `Adapter.forward`."""
        guide_Bh = text_embeddings.new_zeros(len(text_embeddings), self.hidden)
        if self.text_guide_mixer is not None:
            guide_Bh = self.text_guide_mixer.guide(text_embeddings, text_mask)
        sum_Bh = guide_Bh * 0  # keeps W_t in the graph where both modalities are absent: DDP waits for its gradient
        for name, encoder, frames, lengths in (
            ("audio", self.audio_encoder, audio, audio_lengths),
            ("vision", self.vision_encoder, vision, vision_lengths),
        ):
            if encoder is not None and frames is not None and lengths is not None:
                vector_Bh = encoder(frames, lengths)
                if self.absent is not None:  # in the graph even where no sample lacks it: DDP waits for its gradient
                    present_B1 = (lengths > 0)[:, None].to(vector_Bh.device)
                    vector_Bh = torch.where(present_B1, vector_Bh, self.absent[name])
            elif self.absent is not None:
                vector_Bh = self.absent[name].expand_as(guide_Bh)
            else:
                continue
            mixer = self.text_guide_mixer
            sum_Bh = sum_Bh + (vector_Bh if mixer is None else mixer(vector_Bh, guide_Bh))
        if self.conditioning != "paper":
            sum_Bh = F.layer_norm(sum_Bh, sum_Bh.shape[-1:])
        fused_Bh = sum_Bh if self.multi_scale_fusion is None else self.multi_scale_fusion(sum_Bh)
        return self.projector(fused_Bh)


def make_mse(spec: AdapterSpec) -> MSEAdapter:
    """The adapter of a spec, with fresh weights."""
    widths = (spec.text_dim, spec.audio_dim, spec.vision_dim)
    sizes = (spec.audio_hidden, spec.vision_hidden, spec.pseudo_tokens, spec.hidden)
    return MSEAdapter(*widths, *sizes, spec.conditioning, spec.learned_absent, spec.parts)
