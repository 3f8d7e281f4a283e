"""Hidden states of the frozen LLM for texts at hand, and which of them an adapter reads.

`stored_states.py` keeps those of a data set's splits in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import StatesWanted, beyond_its_range, depth, states_there
from msekit.data.catalogue import DatasetSpec
from msekit.model.wording import standard_cue
from msekit.settings.config import AdapterConfig


def cue_of(settings: AdapterConfig, spec: DatasetSpec) -> str:
    """What stands behind a text when its hidden states are read."""
    return standard_cue(spec) if settings.cue is None else settings.cue


def states_wanted(settings: AdapterConfig, spec: DatasetSpec, backbone: Backbone) -> StatesWanted:
    """The layers and the cue that an adapter's settings mean on a backbone and a data set."""
    cue = tuple(backbone.encode(cue_of(settings, spec)))
    layers = depth(backbone)
    # two depths may fall on one layer of a small LLM: it is then read twice, and the adapter keeps its sizes
    return StatesWanted(tuple(round(share * layers) for share in settings.depths), cue)


Text = tuple[tuple[int, ...], int]
"""Tokens, and how many of the first are earlier utterances of its dialogue."""


class FreshStates:
    """The same for texts that are not in the cache, made when this is; who shares the backbone holds its lock then.

    They stay where the LLM is, and nobody waits for them: whether they are finite is asked of `checked` at once, or of
    `finite` when other numbers are read back anyhow. Arguments as for `read_states`.
    """

    def __init__(
        self,
        backbone: Backbone,
        texts: Sequence[Sequence[int]],
        contexts: Sequence[int] | np.ndarray | None,
        wanted: StatesWanted,
    ) -> None:
        different, self._places = different_texts(texts, contexts)
        self._backbone, self._states = backbone, states_there(backbone, *apart(different), wanted)

    @property
    def width(self) -> int:
        """d."""
        return self._states.shape[-1]

    def __len__(self) -> int:
        return len(self._places)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """States of the texts at these positions: (B, L, 2, d) float32."""
        places_B = torch.from_numpy(self._places[np.asarray(indices, dtype=np.int64)])
        return self._states[self._backbone.there(places_B)]

    def finite(self, indices: Sequence[int]) -> Tensor:
        """Whether those of the texts at these positions are: (B,) bool."""
        return self(indices).isfinite().flatten(1).all(dim=1)

    def checked(self) -> FreshStates:
        """Themselves.

        Raises:
            MsekitError: They are not finite.
        """
        if not self._states.isfinite().all():
            raise beyond_its_range(self._backbone)
        return self


def different_texts(
    texts: Sequence[Sequence[int]], contexts: Sequence[int] | np.ndarray | None
) -> tuple[list[Text], np.ndarray]:
    """The different texts, the longest first, and (N,) which of them each text is."""
    counts = [0] * len(texts) if contexts is None else [int(count) for count in contexts]
    every = [(tuple(text), count) for text, count in zip(texts, counts, strict=True)]
    different = sorted(set(every), key=lambda text: (-len(text[0]), text))
    place = {text: number for number, text in enumerate(different)}
    return different, np.array([place[text] for text in every], dtype=np.int64)


def apart(texts: Sequence[Text]) -> tuple[list[tuple[int, ...]], list[int]]:
    return [ids for ids, _ in texts], [context for _, context in texts]
