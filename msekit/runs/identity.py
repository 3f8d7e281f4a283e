"""What makes two runs the same run: the settings that decide its numbers, by name.

A setting that is in neither list fails a test: whoever adds one decides. The precision that the backbone is held in
decides numbers too, but as it turned out (`auto` is none): whoever compares runs takes it from what was loaded.
"""

from __future__ import annotations

from typing import Any

from msekit.adapters.sizes import ADAPTERS
from msekit.runs.report import flatten
from msekit.settings.config import OF_AN_OPINION, RunConfig

DECIDE = (
    *("backbone", "recipe", "layout", "seed"),
    *("adapter.name", "adapter.ablate", "adapter.pseudo_tokens", "adapter.audio_hidden", "adapter.vision_hidden"),
    *("adapter.hidden", "adapter.conditioning", "adapter.depths", "adapter.cue", "adapter.dropout", "adapter.noise"),
    *("data.standardise", "data.trim", "data.max_frames", "data.noise", "data.text_limit", "data.limit_train"),
    *("data.without", "data.on_missing", "data.modality_dropout", "data.context", "data.dtype"),
    *("optim.lr", "optim.eps", "optim.weight_decay", "optim.batch_size", "optim.accumulation", "optim.epochs"),
    *("optim.patience", "optim.warmup", "optim.clip_norm", "optim.ema"),
    *("optim.opinion_samples", "optim.opinion_lr", "optim.opinion_decay", "optim.opinion_share"),
    *("loss.balance", "loss.tau", "loss.smoothing", "loss.expected", "loss.number_token", "loss.alone"),
    *("model.quantization", "model.double_quantization", "model.compile"),
    *("evaluation.estimate", "evaluation.bootstrap", "evaluation.integrity"),
)
"""Settings that decide a run's numbers."""

LATER = {"loss.smoothing": 0.0}
"""Settings that the first runs do not have → what means the same; it is left out, so that such runs are known again."""

LEAVE = (
    *("output", "source", "save_minutes", "timeout_minutes", "profile"),
    *("dataset", "description"),  # told by the cache's fingerprint and the prompt's hash
    *("model.dtype", "model.checkpointing", "model.passes", "evaluation.batch_size", "optim.deterministic"),
    "tracking",
)
"""Settings that do not: where files lie, how often they are saved, what fits the machine."""

_MOST_SHOWN = 5


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's numbers, nested as in `config.yaml`."""
    settings = config.model_dump(mode="json")
    decisive: dict[str, Any] = {}
    opinionated = ADAPTERS[config.adapter.name].has_opinion
    for key in DECIDE:
        if key in OF_AN_OPINION and not opinionated:
            continue
        section, _, name = key.rpartition(".")
        if key in LATER and settings[section][name] == LATER[key]:
            continue
        if section:
            decisive.setdefault(section, {})[name] = settings[section][name]
        else:
            decisive[name] = settings[name]
    return decisive


def apart(before: RunConfig, now: RunConfig) -> list[str]:
    """Every setting in which two runs differ, as `optim.epochs: 3 → 4`; empty where they are the same run."""
    old, new = (flatten(settings_of(config)) for config in (before, now))
    keys = [key for key in (*DECIDE, *sorted(old.keys() | new.keys())) if old.get(key) != new.get(key)]
    return [f"{key}: {_shown(old.get(key))} → {_shown(new.get(key))}" for key in dict.fromkeys(keys)]


def in_words(differences: list[str]) -> str:
    """The first few of them, in one line."""
    more = len(differences) - _MOST_SHOWN
    return ", ".join(differences[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
