"""An adapter that reads audio alone, as someone might add one."""

from __future__ import annotations

from torch import Tensor, nn

from msekit.adapters.interface import Adapter
from msekit.adapters.sizes import AdapterEntry, AdapterSpec


class AudioAlone(Adapter):
    """The first frame, one linear layer to the pseudo tokens."""

    vision_dim = 0

    def __init__(self, spec: AdapterSpec) -> None:
        super().__init__()
        self.audio_dim, self.pseudo_tokens, self.text_dim = spec.audio_dim, spec.pseudo_tokens, spec.text_dim
        self.audio = nn.Linear(spec.audio_dim, spec.pseudo_tokens * spec.text_dim)

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
        assert vision is None, "nothing is prepared that nobody reads"
        assert audio is not None
        return self.audio(audio[:, 0]).view(-1, self.pseudo_tokens, self.text_dim)


ENTRY = AdapterEntry("audio_alone:AudioAlone", lambda spec: (spec.audio_dim + 1) * spec.pseudo_tokens * spec.text_dim)
