"""MAG, the Multimodal Adaptation Gate (Rahman et al. 2020, section 3), over the word embeddings of a frozen LLM.

The paper compares with it in Table 5 and prints no module. 34.47M parameters on ChatGLM3-6B and MOSEI are exactly
Rahman et al.'s own at d = 4096: two gates over text joined with a modality, two displacement maps, one layer norm.
Decided here, because they leave it open: features that are not aligned to words are averaged over each token's share
of the sequence (`aligned`), the LLM reads the rewritten text in the text's place, and a shift is at most as long as its
word (beta = 1). Their dropout of .5 is left out: no other adapter here has any.

Shapes: B batch, T text tokens, L frames of a modality, D features of a frame, d text width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.adapters.sizes import AdapterSpec

BETA = 1.0
"""Longest shift of a word, as a share of the word embedding's length (Rahman et al.'s value)."""


def aligned(frames_BLD: Tensor, lengths_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Average the frames over each token's share of the sequence: token i of n takes the frames in [i L/n, (i+1) L/n).

    Every token takes at least one frame, so that a single vector for the whole sample reaches every token. With L = 5
    frames and n = 2 tokens the first token takes frames 0 and 1, the second frames 2 to 4.

    Args:
        frames_BLD: Features; what lies beyond a sample's length has no effect.
        lengths_B: True lengths in frames, L of each sample.
        mask_BT: 1 at the tokens of the utterance, which stand side by side; n is their number.

    Returns:
        One vector per text position, (B, T, D); zero beyond the utterance and where the modality is absent.
    """
    lengths_B1, tokens_B1 = lengths_B.to(frames_BLD.device)[:, None], mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    token_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)  # i, the token's number within the utterance
    real_BT = mask_BT * (lengths_B1 > 0)  # 0 beyond the utterance, and everywhere without the modality
    start_BT = token_BT * lengths_B1 // tokens_B1 * real_BT  # first frame of the share
    stop_BT = torch.maximum((token_BT + 1) * lengths_B1 // tokens_B1, start_BT + 1) * real_BT  # first frame behind it
    # A share's sum is the difference of two running sums: no loop over tokens, and memory for L + 1 sums instead of
    # T x L weights. In float64, because raw features can be large and the differences small.
    sums_BLD = F.pad(frames_BLD.double().cumsum(dim=1), (0, 0, 1, 0))  # (B, L + 1, D): entry l sums frames 0 to l - 1
    start_BTD, stop_BTD = (
        sums_BLD.gather(1, edge_BT[..., None].expand(-1, -1, frames_BLD.shape[2])) for edge_BT in (start_BT, stop_BT)
    )
    return ((stop_BTD - start_BTD) / (stop_BT - start_BT).clamp(min=1)[..., None]).to(frames_BLD.dtype)


def bounded(shift_BTd: Tensor, text_BTd: Tensor) -> Tensor:
    """Shorten every shift to at most BETA times the length of its word's embedding."""
    lengths_BT1 = torch.linalg.vector_norm(text_BTd, dim=-1, keepdim=True)
    shift_BT1 = torch.linalg.vector_norm(shift_BTd, dim=-1, keepdim=True)
    return shift_BTd * (BETA * lengths_BT1 / shift_BT1.clamp(min=1e-6)).clamp(max=1)


class GatedDisplacement(nn.Module):
    """One modality's shift of the words: a gate over word and modality, times the modality mapped to the text's space.

    Args:
        text_dim: d.
        width: D.
    """

    def __init__(self, text_dim: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(text_dim + width, text_dim)
        self.displacement = nn.Linear(width, text_dim)

    def forward(self, text_BTd: Tensor, modality_BTD: Tensor) -> Tensor:
        """The displacement of every word, (B, T, d)."""
        gate_BTd = F.relu(self.gate(torch.cat([text_BTd, modality_BTD], dim=-1)))
        return gate_BTd * self.displacement(modality_BTD)


class MAGAdapter(Adapter):
    """Shifts every word's embedding by the audio and vision of its share of the utterance.

    Args:
        text_dim: d.
        audio_dim: Features per audio frame; 0 where there is no audio.
        vision_dim: Features per vision frame; 0 where there is no vision.
        text_scale: First value of the layer norm's gain. Rahman et al. start at 1 and fine-tune BERT around it; a
            frozen LLM cannot adapt to embeddings of another size, so recipe `kit` starts at the RMS of its own.
    """

    rewrites_text = True
    pseudo_tokens = 0

    def __init__(self, text_dim: int, audio_dim: int, vision_dim: int, text_scale: float = 1.0) -> None:
        super().__init__()
        self.audio_dim, self.vision_dim = audio_dim, vision_dim
        self.audio = GatedDisplacement(text_dim, audio_dim) if audio_dim else None
        self.vision = GatedDisplacement(text_dim, vision_dim) if vision_dim else None
        self.norm = nn.LayerNorm(text_dim)
        nn.init.constant_(self.norm.weight, text_scale)

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
        shift_BTd = torch.zeros_like(text_embeddings)
        for part, frames, lengths in (
            (self.audio, audio, audio_lengths),
            (self.vision, vision, vision_lengths),
        ):
            if part is not None and frames is not None and lengths is not None:
                present_B11 = (lengths.to(frames.device) > 0)[:, None, None]
                shift_BTd = shift_BTd + part(text_embeddings, aligned(frames, lengths, text_mask)) * present_B11
        return self.norm(text_embeddings + bounded(shift_BTd, text_embeddings))


def make_mag(spec: AdapterSpec) -> MAGAdapter:
    """The adapter of a spec: the gain starts at 1 as published, else at the size of the backbone's own words."""
    scale = 1.0 if spec.conditioning == "paper" else spec.text_scale
    return MAGAdapter(spec.text_dim, spec.audio_dim, spec.vision_dim, scale)
