"""Recipes: the paper's settings exactly, the paper's plug-in fed so that it hears, or the best plug-in measured.

What is not named here is the kit's and stands as a default in config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msekit.adapters.sizes import ADAPTERS
from msekit.paper import PUBLISHED
from msekit.settings.choices import Recipe

if TYPE_CHECKING:
    from msekit.data.extractor import Extractor

RECIPES: dict[Recipe, str] = {
    "paper": "exact; its pairs' default",
    "kit": "the paper's plug-in, fed so that it hears",
    "best": "asks the LLM's hidden states; the default",
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
    "targets": {"evaluation": {"estimate": "mean"}},
}
"""By task, of several targets what suits every kind; intensities have few samples for many labels, which have distances
(benchmarks/accuracy/RESULTS.md)."""

_ASK_THE_LLM: dict[str, Any] = {
    "layout": "prompt-first",
    "adapter": {"name": "mse-states"},
    "loss": {"alone": 1.0},
    "optim": {"epochs": 3, "patience": 2, "opinion_samples": 20_000},
}

BEST: dict[str, dict[str, Any]] = {
    "erc": _ASK_THE_LLM | {"loss": {"alone": 1.0, "balance": "class-balanced", "tau": 0.3, "smoothing": 0.1}},
    "msa": _ASK_THE_LLM,
    "targets": _ASK_THE_LLM,
}
"""What recipe `best` adds to `kit`, by task: the plug-in that reads the LLM's hidden states and has an opinion, which
trains alone first (benchmarks/accuracy/RESULTS.md, "Recipe `best`")."""


def recipe_layers(recipe: str, task: str, backbone: str, dataset: str) -> list[dict[str, Any]]:
    """Settings of a recipe, each layer overriding the one before; none for a recipe that there is not."""
    layers = {
        "paper": [PAPER, published_settings(backbone, dataset)],
        "kit": [KIT[task]],
        "best": [KIT[task], BEST[task]],
    }
    return layers.get(recipe, [])


def extractor_layer(recipe: str, extractors: Mapping[Any, Extractor]) -> dict[str, Any]:
    """What recipes but the paper's do otherwise for a set whose features are all an encoder's states.

    Silence around speech stands still in descriptors, and trimming cuts it; an encoder's states move there too, so that
    nothing tells what to cut. (By this reason; not measured.)
    """
    from msekit.data.catalogue import MODALITIES  # brings pydantic, which --help does without

    made = [extractors[name] for name in MODALITIES if name in extractors]
    if recipe == "paper" or not made or not all(extractor.is_encoder for extractor in made):
        return {}
    return {"data": {"trim": 0.0}}


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


def default_recipe(backbone: str, dataset: str, chosen: dict[str, Any]) -> Recipe:
    """`paper` for the paper's twelve pairs, `best` for every other; `kit` for another adapter than `best` has.

    Args:
        backbone: Its catalogue name.
        dataset: As the user wrote it.
        chosen: What a user asks for, as config keys.
    """
    # what is no section or no name is refused later, with all that is wrong in settings
    adapter, data = (part if isinstance(part := chosen.get(key), dict) else {} for key in ("adapter", "data"))
    name = str(adapter.get("name") or "")
    if name in ADAPTERS and ADAPTERS[name].has_opinion:
        return "best"
    if (backbone, dataset) in PUBLISHED:
        return "paper"
    learned = data.get("on_missing") == "learned"  # vectors of the paper's plug-in
    return "kit" if name or adapter.get("ablate") or learned else "best"
