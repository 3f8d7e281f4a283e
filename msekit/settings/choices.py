"""Names that settings take and no table of the code holds. Nothing is imported, so that `--help` stays quick."""

from __future__ import annotations

from typing import Literal, get_args

Recipe = Literal["paper", "kit", "best"]
"""The settings that a run starts from (`settings/recipes.py`)."""
Layout = Literal["paper", "prompt-first"]
"""Where the task prompt stands: after the content, or before it (`model/wording.py`)."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
OnMissing = Literal["zero", "learned", "drop", "error"]
"""What becomes of samples that lack a modality (`data/batches/missing.py`)."""
MISSING_POLICIES: tuple[OnMissing, ...] = get_args(OnMissing)
Estimate = Literal["greedy", "argmax", "mean", "median"]
"""How label scores become one answer (`model/labels.py`)."""
ESTIMATES: dict[str, tuple[Estimate, ...]] = {
    "erc": ("greedy", "argmax"),
    "msa": get_args(Estimate),
    "targets": get_args(Estimate),
}
"""By task: emotions have no mean; of several targets, ranges alone have."""
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio", "comet", "swanlab"]
"""Experiment trackers that accelerate speaks to (`training/trackers.py`)."""
TRACKERS: dict[Tracker, str] = {name: "comet_ml" if name == "comet" else name for name in get_args(Tracker)}
"""Tracker → the package it needs, which is accelerate's name for it too."""
