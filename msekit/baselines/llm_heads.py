"""MAG-BERT (Rahman et al., ACL 2020) and CHFN (Guo et al., ACM MM 2022) in the form of BERT: words shifted by sound and
picture at the input of the text model, and a head on one of its states instead of words that it writes.

The modules are the adapters of the same names (`adapters/mag.py`, `adapters/chfn.py`). There BERT is tuned behind the
shift and the head reads [CLS]; here the LLM is frozen, gradients flow through it, and the head reads the state of the
last token behind a cue, which alone has seen everything. MAG's norm starts at the size of the LLM's own embeddings.

Shapes: B batch, T tokens of text and cue, S those and the opening, d width of the LLM, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msekit.adapters.chfn import CHFNAdapter
from msekit.adapters.interface import Adapter
from msekit.adapters.mag import MAGAdapter
from msekit.baselines.blocks import last_real
from msekit.baselines.rival_batch import RivalBatch, Sizes, real_steps
from msekit.baselines.texts import OfLLM
from msekit.model.assemble import text_scale

DROPOUT = 0.2


class ShiftedLLM(nn.Module):
    """An adapter that rewrites a text's embeddings, the frozen LLM over them, a Linear on the last token's state.

    Args:
        sizes: Of the data.
        of_llm: The frozen LLM, which is no submodule, so that nothing of it is trained, counted or saved; and how long
            the cue behind each text is, which is read and not shifted.
        adapter: What shifts.
    """

    def __init__(self, sizes: Sizes, of_llm: OfLLM, adapter: Adapter) -> None:
        super().__init__()
        self._frozen, self.cue = (of_llm.backbone,), of_llm.cue
        self.adapter = adapter
        self.output = nn.Linear(of_llm.backbone.text_dim, sizes.outputs)

    def forward(self, batch: RivalBatch) -> Tensor:
        """(B, O)."""
        (backbone,) = self._frozen
        own_BT = real_steps(batch.text_lengths - self.cue, batch.text_ids.shape[1])
        given_BTd = backbone.embed(batch.text_ids).float()
        frames = (batch.audio, batch.audio_lengths, batch.vision, batch.vision_lengths)
        shifted_BTd = self.adapter(given_BTd, own_BT.long(), *frames)
        opening_kd = backbone.constant(tuple(backbone.bos))
        opening_Bkd = opening_kd[None].expand(len(given_BTd), -1, -1)
        lengths_B = batch.text_lengths + len(opening_kd)
        x_BSd = torch.cat([opening_Bkd, shifted_BTd.to(opening_kd.dtype)], dim=1)
        states_BSd = backbone.model.base_model(
            inputs_embeds=x_BSd,
            attention_mask=real_steps(lengths_B, x_BSd.shape[1]).long(),
            position_ids=torch.arange(x_BSd.shape[1], device=x_BSd.device).expand(len(x_BSd), -1),
            use_cache=False,
        ).last_hidden_state
        return self.output(F.dropout(last_real(states_BSd, lengths_B).float(), DROPOUT, self.training))


def mag_head(sizes: Sizes, of_llm: OfLLM) -> ShiftedLLM:
    """`mag-head`, with fresh weights."""
    text_dim, scale = of_llm.backbone.text_dim, text_scale(of_llm.backbone)
    widths = (sizes.widths.get("audio", 0), sizes.widths.get("vision", 0))
    return ShiftedLLM(sizes, of_llm, MAGAdapter(text_dim, *widths, scale))


def chfn_head(sizes: Sizes, of_llm: OfLLM) -> ShiftedLLM:
    """`chfn-head`, with fresh weights."""
    widths = (sizes.widths.get("audio", 0), sizes.widths.get("vision", 0))
    return ShiftedLLM(sizes, of_llm, CHFNAdapter(of_llm.backbone.text_dim, *widths))
