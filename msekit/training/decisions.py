"""What a run's settings leave open, as `build` decided it: a run folder's `config.yaml` says what was done."""

from __future__ import annotations

from collections.abc import Mapping

from msekit.backbones.precision import DTYPES
from msekit.settings.config import RunConfig
from msekit.training.build import Parts


def as_decided(config: RunConfig, parts: Parts) -> RunConfig:
    """A run's settings with nothing left open: precision, recomputed layers, evaluation batch as `build` chose them."""
    names = {kind: name for name, kind in DTYPES.items()}
    model = {"dtype": names[parts.backbone.model.dtype], "checkpointing": "on" if parts.checkpointing else "off"}
    return _changed(config, model, {"batch_size": parts.evaluation_batch})


def as_before(config: RunConfig, before: RunConfig) -> RunConfig:
    """A run's settings, what they leave open filled in as it was decided in an earlier part of the same run.

    So the command that started a run also resumes it, wherever the machine would decide otherwise by now.
    """
    model = {} if config.model.dtype != "auto" else {"dtype": before.model.dtype}
    return _changed(config, model, {})


def _changed(config: RunConfig, model: Mapping[str, str], evaluation: Mapping[str, int]) -> RunConfig:
    """A copy with some settings of two sections changed."""
    sections = {
        "model": config.model.model_copy(update=model),
        "evaluation": config.evaluation.model_copy(update=evaluation),
    }
    return config.model_copy(update=sections)
