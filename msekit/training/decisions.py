"""What a run's settings leave open, as `build` decided it: a run folder's `config.yaml` says what was done."""

from __future__ import annotations

from msekit.backbones.precision import DTYPES
from msekit.settings.config import RunConfig
from msekit.training.build import Parts


def as_decided(config: RunConfig, parts: Parts) -> RunConfig:
    """A run's settings with nothing left open: precision, recomputed layers, the pass's ways, evaluation batch."""
    names = {kind: name for name, kind in DTYPES.items()}
    model = {
        "dtype": names[parts.backbone.model.dtype],
        "checkpointing": "on" if parts.checkpointing else "off",
        "passes": parts.backbone.passes.uses or "plain",
    }
    sections = {
        "model": config.model.model_copy(update=model),
        "evaluation": config.evaluation.model_copy(update={"batch_size": parts.evaluation_batch}),
    }
    return config.model_copy(update=sections)
