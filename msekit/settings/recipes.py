"""Recipes: the paper's settings exactly, the kit's, or the best measured, as keys of a run's configuration.

What is not named here is the kit's and stands as a default in config.py.
"""

from __future__ import annotations

from typing import Any

from msekit.paper import PUBLISHED
from msekit.settings.choices import Recipe

RECIPES: dict[Recipe, str] = {
    "paper": "exact; its pairs' default",
    "kit": "hears the audio",
    "best": "kit and what measured better",
}
"""What a user is told of each."""

PAPER: dict[str, Any] = {
    "adapter": {"conditioning": "paper"},
    "data": {"standardise": False, "trim": 0.0, "max_frames": None, "noise": 0.0},
    "optim": {"lr": 5e-4, "eps": 1e-4, "clip_norm": None, "epochs": 30, "patience": 10},
}

KIT: dict[str, dict[str, Any]] = {
    "erc": {},
    "msa": {"data": {"noise": 1.0}, "loss": {"expected": 3.0}, "evaluation": {"estimate": "mean"}},
}
"""By task; intensities have few samples for many labels, which have distances (benchmarks/accuracy/RESULTS.md)."""

BEST: dict[str, dict[str, Any]] = {
    "erc": {"loss": {"balance": "class-balanced"}},
    "msa": {"layout": "prompt-first"},
}
"""What recipe `best` adds to `kit`, by task: what did better over three seeds on every real set of the task, and
nothing else (benchmarks/accuracy/RESULTS.md, "Training options, and recipe `best`")."""


def recipe_layers(recipe: str, task: str, backbone: str, dataset: str) -> list[dict[str, Any]]:
    """Settings of a recipe, each layer overriding the one before; none for a recipe that there is not."""
    layers = {
        "paper": [PAPER, published_settings(backbone, dataset)],
        "kit": [KIT[task]],
        "best": [KIT[task], BEST[task]],
    }
    return layers.get(recipe, [])


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
