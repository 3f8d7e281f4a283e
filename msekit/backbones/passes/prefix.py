"""What every sequence begins with, read by the backbone once: its keys and values, reused by every step.

The first tokens of a sequence see nothing but one another, so their keys and values are the same for every sample,
in training as in evaluation, and no gradient needs to pass through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from msekit.backbones.passes.agree import agree

if TYPE_CHECKING:
    from msekit.backbones.backbone import Backbone


class PrefixLayer(DynamicLayer):
    """One layer's keys and values. Reading them leaves them as they are, so that recomputed layers may read again.

    Args:
        keys: (1, heads, prefix, width of a head).
        values: Likewise.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The prefix in front of a batch's own keys and values."""
        size = len(key_states)
        return (
            torch.cat([self.keys.expand(size, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(size, -1, -1, -1), value_states], dim=-2),
        )


@torch.no_grad()
def read_prefix(backbone: Backbone, prefix: list[int], following: list[int]) -> Cache | None:
    """Let the backbone read a prefix.

    Args:
        backbone: The frozen LLM.
        prefix: Tokens that every sequence begins with.
        following: Tokens to try the cache on.

    Returns:
        The cache to put in front of every batch; None where there is no prefix, or where the architecture does not
        take one (its logits after the cache differ from those of the whole sequence).
    """
    if not prefix or backbone.cache_argument not in backbone.takes:
        return None
    embedded = backbone.embed(torch.tensor([prefix + following], device=backbone.device))
    try:
        cache = DynamicCache()
        options: dict[str, Any] = {backbone.cache_argument: cache, "use_cache": True}
        backbone.model(inputs_embeds=embedded[:, : len(prefix)], **options)
        read = Cache(layers=[PrefixLayer(layer.keys, layer.values) for layer in cache.layers])
        return read if _agrees(backbone, read, embedded, len(prefix)) else None
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # state-space and other layers keep something else than keys and values


def _agrees(backbone: Backbone, cache: Cache, embedded_1Sd: Tensor, prefix: int) -> bool:
    """Whether two samples, one with a column of padding after the prefix, get the logits they get without a cache."""
    from msekit.backbones.sequence import Sequence

    whole = embedded_1Sd.expand(2, -1, -1)
    mask = torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device)
    mask[1, prefix] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    plain = backbone.logits(Sequence(whole, mask, positions, 1))
    behind = Sequence(whole[:, prefix:], mask[:, prefix:], positions[:, prefix:] - prefix, 1).behind(cache)
    cached = backbone.logits(behind)
    return agree(cached, plain)
