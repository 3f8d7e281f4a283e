"""A run + a split → predictions and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msekit.config import read_run_file, validated
from msekit.data.features import Preprocessor
from msekit.errors import MsekitError
from msekit.evaluation.scoring import score_split
from msekit.reporter import Reporter
from msekit.training.build import Parts, build
from msekit.training.checkpoint import load_adapter, read_tensors
from msekit.training.distributed import accelerator_for
from msekit.training.outcome import describe, width_of
from msekit.training.run_folder import find_run

_SHUFFLE_SEED = 0


def evaluate(
    run: Path,
    split: str = "test",
    *,
    source: Path | None = None,
    dataset: str | None = None,
    estimate: str | None = None,
    shuffle: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score a split with a run's best adapter.

    Args:
        run: The run folder.
        split: `train`, `valid` or `test`.
        source: Where the features lie now.
        dataset: Another data set than the run's own.
        estimate: Another point estimate than the run's own.
        shuffle: Give every sample another one's audio and vision.
        reporter: Where progress goes; None for the terminal.

    Returns:
        The keys of `report.json` that an evaluation has, and `shuffled`.

    Raises:
        MsekitError: No run there, a damaged adapter, features of another width, another backbone or prompt.
    """
    folder = find_run(run)
    changes = {"source": source and source.resolve(), "dataset": dataset}
    settings = read_run_file(folder / "config.yaml") | {key: value for key, value in changes.items() if value}
    if estimate:
        settings["evaluation"] = settings.get("evaluation", {}) | {"estimate": estimate}
    config = validated(settings, where=folder / "config.yaml")
    reporter = reporter or Reporter()
    parts = build(config, reporter, splits=(split,))
    restore(parts, folder)
    collator = parts.collators[split]
    if shuffle:
        collator.shuffle_modalities(_SHUFFLE_SEED)
    accelerator = accelerator_for(parts.backbone.device)
    scores = score_split(parts.model, collator, config.evaluation.batch_size, accelerator, reporter, split)
    return describe(config, parts, scores, split) | {"shuffled": shuffle}


def restore(parts: Parts, folder: Path) -> None:
    """Put a run's best adapter and its feature statistics into freshly built parts.

    Raises:
        MsekitError: The adapter does not fit the features, the backbone or the prompt.
    """
    description = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    for modality, trained in description["widths"].items():
        found = width_of(parts, modality)
        if found != trained:
            raise MsekitError(
                f"the run was trained on {modality} features of width {trained}, these have width {found}",
                where=folder,
                fix="Give the features it was trained with, by --source.",
            )
    if description["backbone"]["fingerprint"] != parts.backbone.fingerprint:
        raise MsekitError("the run was trained on other backbone weights", where=folder)
    if description["prompt_sha256"] != parts.model.layout.sha256:
        raise MsekitError("the run was trained with another prompt", where=folder)
    tensors, _ = read_tensors(folder / "adapter.safetensors")
    load_adapter(parts.model.adapter, tensors, folder / "adapter.safetensors")
    for modality, way in description["features"].items():
        if way is not None:  # the train split's statistics, also where another data set is evaluated
            for collator in parts.collators.values():
                setattr(collator, modality, Preprocessor(**way))
