"""Recipes: the paper's settings exactly, or the kit's, as keys of a run's configuration.

What is not named here is the kit's and stands as a default in config.py.
"""

from __future__ import annotations

from typing import Any, Literal

from msekit.paper import PUBLISHED

Recipe = Literal["paper", "kit"]

RECIPES: dict[str, dict[str, Any]] = {
    "kit": {},
    "paper": {
        "adapter": {"conditioning": "paper"},
        "data": {"standardise": False, "trim": 0.0, "max_frames": None, "noise": 0.0},
        "optim": {"lr": 5e-4, "eps": 1e-4, "clip_norm": None, "epochs": 30, "patience": 10},
    },
}

KIT_FOR_INTENSITIES: dict[str, Any] = {
    "data": {"noise": 1.0},
    "loss": {"expected": 3.0},
    "evaluation": {"estimate": "mean"},
}
"""What recipe `kit` does otherwise for msa: few samples for many labels, which have distances (RESULTS.md)."""


def published_settings(backbone: str, dataset: str) -> dict[str, Any]:
    """The paper's settings for a pair, as config keys; empty for a pair that the paper does not have."""
    pair = PUBLISHED.get((backbone, dataset))
    if pair is None:
        return {}
    return {
        "adapter": {
            "pseudo_tokens": pair.pseudo_tokens,
            "audio_hidden": pair.audio_hidden,
            "vision_hidden": pair.vision_hidden,
        },
        "data": {"text_limit": pair.text_limit},
        "optim": {
            "lr": pair.lr,
            "batch_size": pair.batch_size,
            "epochs": pair.epochs,
            "patience": pair.patience,
        },
    }


def default_recipe(backbone: str, dataset: str) -> Recipe:
    """`paper` for the paper's twelve pairs, `kit` for every other."""
    return "paper" if (backbone, dataset) in PUBLISHED else "kit"
