"""A backbone and a config or description → MSEModel: the one place that puts a model together."""

from __future__ import annotations

import torch

from msekit.adapters.interface import Adapter
from msekit.backbones.backbone import Backbone
from msekit.errors import MsekitError
from msekit.model.make_adapter import adapter_from
from msekit.model.mse_model import MSEModel
from msekit.settings.config import RunConfig


def make_adapter(
    config: RunConfig, text_dim: int, audio_width: int, vision_width: int, text_scale: float = 1.0
) -> Adapter:
    """A freshly initialised adapter, the same for the same seed whatever ran before."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        learned = config.data.on_missing == "learned"
        return adapter_from(config.adapter, text_dim, audio_width, vision_width, text_scale, learned)


def text_scale(backbone: Backbone) -> float:
    """RMS of the backbone's embedding table: the size that its words have."""
    table_Vd = backbone.model.get_input_embeddings().weight
    return float(torch.linalg.vector_norm(table_Vd, dtype=torch.float32) / table_Vd.numel() ** 0.5)


def check_context(backbone: Backbone, model: MSEModel, limit: int) -> None:
    """Refuse sequences longer than the backbone was trained for.

    Raises:
        MsekitError: With both lengths.
    """
    trained = getattr(backbone.model.config, "max_position_embeddings", None)
    answer = max(len(tokens) for tokens in model.labels.tokens)
    longest = len(model.layout.opening) + model.adapter.pseudo_tokens + limit + len(model.layout.closing) + answer
    if trained is not None and longest > trained:
        raise MsekitError(
            f"sequences of up to {longest} tokens exceed the {trained} that {backbone.name} was trained for",
            fix="Lower data.text_limit.",
        )
