"""What a run leaves behind: the adapter with all that inference needs, predictions, and the report."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.unlabelled import without_label
from msekit.evaluation.records import prediction_counts, prediction_lines
from msekit.evaluation.scoring import Scores
from msekit.reporter import Reporter
from msekit.runs.description import FORMAT, BackboneRef, Description, write_description
from msekit.runs.files import ADAPTER
from msekit.runs.machine import peaks, versions
from msekit.runs.predictions import write_predictions
from msekit.runs.progress import Progress
from msekit.runs.report import Report, write_report
from msekit.runs.tensors import write_tensors
from msekit.settings.config import RunConfig
from msekit.settings.resolve import resolve
from msekit.training.build import Parts
from msekit.version import __version__


@dataclass(frozen=True)
class Outcome:
    """What came of training."""

    scores: Scores
    """Of the test split, by the best adapter."""
    shuffled: Scores | None
    """Likewise, with every sample's audio and vision taken from another; None where it reads neither."""
    progress: Progress
    weights: dict[str, str]
    """The loaded backbone's fingerprints, `before` and `after` training."""


def save_best(config: RunConfig, parts: Parts, best: dict[str, Tensor]) -> None:
    """Write `adapter.json` and `adapter.safetensors`: all that inference needs beside the backbone."""
    description = Description(
        kind="plug-in",
        format=FORMAT,
        msekit=__version__,
        backbone=backbone_of(config, parts),
        dataset=parts.spec,
        data_fingerprint=parts.cache.info.fingerprint,
        adapter=config.adapter.model_copy(update={"cue": parts.cue}),
        text_dim=parts.backbone.text_dim,
        widths=parts.widths,
        features={"audio": parts.preprocessors["audio"], "vision": parts.preprocessors["vision"]},
        feature_dtype=config.data.dtype,
        text_limit=parts.text_limit,
        context=config.data.context,
        on_missing=config.data.on_missing,
        estimate=config.evaluation.estimate,
        prompt=parts.spec.task_prompt,
        layout=config.layout,
        prompt_sha256=parts.model.layout.sha256,
        recipe=config.recipe,
        seed=config.seed,
        trainable_parameters=trainable_parameters(parts),
    )
    write_tensors(config.output / ADAPTER, best)
    write_description(config.output, description)


def backbone_of(config: RunConfig, parts: Parts) -> BackboneRef:
    """The LLM that the run is trained on."""
    return BackboneRef(
        name=config.backbone,
        fingerprint=parts.backbone.fingerprint,
        configuration=parts.backbone.configuration,
        **precision(config, parts),
    )


def trainable_parameters(parts: Parts) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in parts.model.adapter.parameters())


def describe(config: RunConfig, parts: Parts, scores: Scores, split: str) -> dict[str, Any]:
    """The part of a report that `train` and `evaluate` share."""
    estimate = config.evaluation.estimate
    without = int(without_label(scores.truths).sum())
    return ({"without_label": without} if without else {}) | {
        "dataset": parts.spec.name,
        "backbone": config.backbone,
        **precision(config, parts),
        "passes": passes(parts),
        "adapter": config.adapter.name,
        "ablate": config.adapter.ablate,
        "recipe": config.recipe,
        "seed": config.seed,
        "split": split,
        "fold": parts.spec.fold,
        "samples": len(scores.truths),
        "estimate": estimate,
        "metrics": scores.metrics(parts.spec, estimate),
        "alone": {name: part.metrics(parts.spec, estimate) for name, part in scores.alone().items()} or None,
        "llm_weight": llm_weight(parts),
        "confidence": scores.confidence(parts.spec, config.evaluation),
        "predicted": prediction_counts(scores, estimate),
        "collapsed_to": scores.collapsed(estimate),
        "without": list(config.data.without),
        "layout": config.layout,
        "limit_train": config.data.limit_train,
        "on_missing": config.data.on_missing,
        "modality_dropout": config.data.modality_dropout,
        "options": options_apart(config, parts.spec),
        "incomplete_samples": parts.incomplete(split),
        "context": config.data.context,
        "truncated_texts": parts.truncated,
        "data_fingerprint": parts.cache.info.fingerprint,
        "backbone_fingerprint": parts.backbone.fingerprint,
        "prompt_sha256": parts.model.layout.sha256,
        "versions": versions(),
    }


def llm_weight(parts: Parts) -> float | dict[str, float] | None:
    """How far the LLM is trusted beside an opinion, of several targets by question; None where there is none."""
    if parts.model.product is None:
        return None
    weights = torch.as_tensor(parts.model.llm_weight).tolist()
    asked = parts.model.answers.asked
    return {one.name: weight for one, weight in zip(asked, weights, strict=True)} if asked[0].name else weights[0]


def options_apart(config: RunConfig, spec: DatasetSpec) -> list[str]:
    """Training options that are not the recipe's, as `--set` takes them, and weights of several targets that are not 1:
    they make a run another experiment."""
    named = {"backbone": config.backbone, "dataset": config.dataset, "output": config.output, "recipe": config.recipe}
    recipe = resolve(named, task=spec.task)
    options = [(f"loss.{name}", value, getattr(recipe.loss, name)) for name, value in config.loss.model_dump().items()]
    options.append(("optim.ema", config.optim.ema, recipe.optim.ema))
    options.append(("adapter.conditioning", config.adapter.conditioning, recipe.adapter.conditioning))
    options += [(f"targets.{name}.weight", target.weight, 1.0) for name, target in spec.targets.items()]
    return [f"{name}={ours}" for name, ours, theirs in options if ours != theirs]


def precision(config: RunConfig, parts: Parts) -> dict[str, str]:
    """How the backbone was held."""
    return {
        "quantization": config.model.quantization,
        "dtype": str(parts.backbone.model.dtype).removeprefix("torch."),
    }


def passes(parts: Parts) -> dict[str, Any]:
    """The shorter ways that its pass took, and why not the others."""
    return {"used": list(parts.backbone.passes.uses), "refused": parts.backbone.passes.refused}


def finish(config: RunConfig, parts: Parts, outcome: Outcome, reporter: Reporter, main_process: bool) -> dict[str, Any]:
    """Write the predictions and, last, the report: a folder with a report is a finished run."""
    scores, shuffled, progress = outcome.scores, outcome.shuffled, outcome.progress
    estimate = config.evaluation.estimate
    document = describe(config, parts, scores, "test") | {
        "integrity": shuffled and {"metrics": shuffled.metrics(parts.spec, estimate)},
        "best_epoch": progress.best_epoch,
        "backbone_weights": outcome.weights,
        "epochs": progress.epoch,
        "dropped_train": parts.incomplete("train") if config.data.on_missing == "drop" else 0,
        "trainable_parameters": trainable_parameters(parts),
        **peaks(parts.backbone.device),
        "train_samples_per_s": progress.trained / max(progress.seconds, 1e-9),
        "train_seconds": progress.seconds,
        "train_cpu_seconds": progress.cpu_seconds,
        "opinion_seconds": progress.opinion_seconds,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {parts.backbone.device.type}",
    }
    if progress.ends:
        document["continued"] = [f"after epoch {epoch}" for epoch in progress.ends]
    if parts.backbone.model.dtype == torch.float16:
        document["skipped_steps"] = progress.skipped
    report = Report.model_validate(document)
    if main_process:
        ids = parts.collators["test"].split.ids
        digest = write_predictions(config.output, prediction_lines(scores, ids, estimate))
        report = report.model_copy(update={"predictions_sha256": digest})
        write_report(config.output, report)
    if report.collapsed_to is not None:
        reporter.warn(f"every test sample is predicted as '{report.collapsed_to}': the run has collapsed")
    elif (said := report.few_classes) is not None:
        reporter.warn(f"test split: {said}")
    return report.document()
