"""Which setting a name means that is none: `lr` is `optim.lr`."""

from __future__ import annotations

from typing import get_args

from pydantic.fields import FieldInfo

from msekit.settings.config import RunConfig

_OTHER_NAMES = {
    "learning_rate": "optim.lr",
    "batch": "optim.batch_size",
    "gradient_accumulation": "optim.accumulation",
    "grad_clip": "optim.clip_norm",
    "wd": "optim.weight_decay",
    "precision": "model.dtype",
    "gradient_checkpointing": "model.checkpointing",
    "max_length": "data.text_limit",
    "limit": "data.limit_train",
    "early_stopping": "optim.patience",
    "label_smoothing": "loss.smoothing",
}
_FIRST = ("optim", "data", "model", "adapter", "loss", "evaluation", "description")


def paths() -> list[str]:
    """Every setting inside a section: `optim.lr`, …"""
    return [f"{section}.{name}" for section in _FIRST for name in _fields(section)]


def settings_named(name: str) -> list[str]:
    """The settings that a name of another spelling means: those that end so, or are called so elsewhere."""
    plain = name.lstrip("-").replace("-", "_")
    found = [path for path in paths() if path.rpartition(".")[2] == plain]
    return [*found, _OTHER_NAMES[plain]] if plain in _OTHER_NAMES else found


def meant(name: str) -> str | None:
    """Advice on a name that is no setting; None where it means none."""
    found = settings_named(name)
    return f"Did you mean {' or '.join(found)}?" if found else None


def takes_text(path: str) -> bool:
    """Whether a setting is a text, or a text or none: taken as it stands, whatever YAML would make of it."""
    section, _, name = path.partition(".")
    field = _fields(section).get(name) if section in RunConfig.model_fields else None
    return field is not None and set(get_args(field.annotation) or [field.annotation]) <= {str, type(None)}


def _fields(section: str) -> dict[str, FieldInfo]:
    annotation = RunConfig.model_fields[section].annotation
    return dict(getattr(annotation, "model_fields", {}))
