"""A run + a split → predictions and metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from msekit.adapters.weights import load_adapter
from msekit.backbones.precision import default_device, dtype_here
from msekit.data.catalogue import DatasetSpec
from msekit.data.extractor import check_extractor
from msekit.distributed.accelerator import accelerator_for
from msekit.errors import MsekitError
from msekit.evaluation.scoring import SHUFFLE_SEED, score_split
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.description import Description, read_description
from msekit.runs.files import ADAPTER
from msekit.runs.folder import find_run
from msekit.runs.machine import peaks
from msekit.runs.moved_data import with_data
from msekit.runs.report import Report, read_report
from msekit.runs.tensors import read_tensors
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of
from msekit.settings.profiles import profile_at_hand
from msekit.training.build import Parts, build
from msekit.training.outcome import describe


def evaluate(
    run: Path,
    split: str = "test",
    *,
    source: Path | None = None,
    dataset: str | None = None,
    estimate: str | None = None,
    quantization: str | None = None,
    shuffle: bool = False,
    without: tuple[str, ...] = (),
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score a split with a run's best adapter.

    Args:
        run: The run folder.
        split: `train`, `valid` or `test`.
        source: Where the features lie now.
        dataset: Another data set than the run's own.
        estimate: Another point estimate than the run's own.
        quantization: `none`, `int8` or `nf4`, where the backbone is to be held otherwise than in training.
        shuffle: Give every sample another one's audio and vision.
        without: Modalities to withhold from every sample: how well the run does when they are missing.
        reporter: Where progress goes; None for the terminal.

    Returns:
        The keys of `report.json` that an evaluation has, `shuffled` and `tested_without`.

    Raises:
        MsekitError: No run there, a damaged adapter, features of another width, another backbone or prompt; a
            modality to withhold that the run never had.
    """
    reporter = reporter or Reporter()
    folder, config, parts = open_run(
        run, (split,), source=source, dataset=dataset, estimate=estimate, quantization=quantization, reporter=reporter
    )
    collator = parts.collators[split]
    if shuffle:
        collator = collator.shuffled(SHUFFLE_SEED)
    collator = replace(collator, withheld=withheld(without, parts.modalities))
    accelerator = accelerator_for(parts.backbone.device)
    scores = score_split(parts.model, collator, parts.evaluation_batch, accelerator, reporter, split)
    trained = read_report(folder)
    document = describe(config, parts, scores, split) | {
        **{key: getattr(trained, key, None) for key in ("best_epoch", "train_samples_per_s", "dropped_train")},
        **peaks(parts.backbone.device),
        "shuffled": shuffle,
        "tested_without": list(without),
    }
    return Report.model_validate(document).document()


def open_run(
    run: Path,
    splits: tuple[str, ...],
    *,
    source: Path | None = None,
    dataset: str | None = None,
    estimate: str | None = None,
    quantization: str | None = None,
    reporter: Reporter,
) -> tuple[Path, RunConfig, Parts]:
    """A trained run, ready to score: its folder, its settings, and its parts with the best adapter restored.

    Raises:
        MsekitError: As `evaluate`.
    """
    folder = find_run(run)
    description = read_description(folder)
    config = config_of(folder, description, source, dataset, estimate)
    refuse_other_answers(description.dataset, spec_of(config), folder)
    quantization = quantization or config.model.quantization
    trained_in = description.backbone.dtype
    model = {
        "quantization": quantization,
        "dtype": dtype_here(trained_in, default_device()) or config.model.dtype,
        "checkpointing": "off",  # scoring keeps nothing for a backward pass
        "compile": False,  # scoring a split once does not pay for it
        "passes": "plain" if config.model.passes == "plain" else "auto",  # the ways of another machine may not be here
    }
    config = config.model_copy(update={"model": config.model.model_copy(update=model)})
    trained_by, anew = config.evaluation.batch_size, config.evaluation.model_copy(update={"batch_size": None})
    parts = build(config.model_copy(update={"evaluation": anew}), reporter, splits=splits)
    if trained_by is not None:  # as many at a time as in training, or what this machine has room for
        parts.evaluation_batch = min(parts.evaluation_batch, trained_by)
    restore(parts, folder, description)
    if (otherwise := description.backbone.read_otherwise(parts.backbone.configuration)) is not None:
        reporter.warn(otherwise)
    trained_with, held_as = description.backbone.quantization, config.model.quantization
    if trained_with != held_as:
        reporter.note(f"trained with quantization {trained_with}, evaluated with {held_as}, of the same weights")
    held_in = str(parts.backbone.model.dtype).removeprefix("torch.")
    if trained_in not in (None, held_in):
        here = "GPU" if parts.backbone.device.type == "cuda" else "CPU"
        reporter.note(f"trained in {trained_in}, evaluated in {held_in}: this {here} has no unit for {trained_in}")
    return folder, config, parts


def config_of(
    folder: Path, description: Description, source: Path | None, dataset: str | None, estimate: str | None
) -> RunConfig:
    """The run's settings, with what is asked otherwise for this evaluation."""
    config = with_data(read_config(folder), source, dataset)
    changes: dict[str, Any] = {
        "layout": description.layout,
        "profile": profile_at_hand(config.profile),
        "adapter": description.adapter,
    }
    if estimate:
        changes["evaluation"] = config.evaluation.model_copy(update={"estimate": estimate})
    restored = {key: getattr(description, key) for key in ("text_limit", "context", "on_missing")}
    return config.model_copy(update=changes | {"data": config.data.model_copy(update=restored)})


def refuse_other_answers(trained: DatasetSpec, here: DatasetSpec, folder: Path) -> None:
    """Refuse a data set that asks other things than a run was trained for.

    Raises:
        MsekitError: It does.
    """
    answers = [{name: one.decides_rows() for name, one in of.targets.items()} for of in (trained, here)]
    if answers[0] != answers[1]:
        raise MsekitError("the run was trained for other targets than this data set has", where=folder)
    for key in ("task", "labels", "range"):
        before, now = getattr(trained, key), getattr(here, key)
        if before != now:
            raise MsekitError(f"the run was trained for {key} {before}, this data set has {now}", where=folder)


def withheld(without: tuple[str, ...], modalities: list[str]) -> frozenset[str]:
    """The modalities to withhold.

    Raises:
        MsekitError: The run is not fed one of them.
    """
    if unknown := [name for name in without if name not in modalities]:
        readable = " and ".join(modalities) or "neither audio nor vision"
        raise MsekitError(f"there is no '{unknown[0]}' to withhold", where="--without", fix=f"The run has {readable}.")
    return frozenset(without)


def restore(parts: Parts, folder: Path, description: Description) -> None:
    """Put a run's best adapter and its feature statistics into freshly built parts.

    Raises:
        MsekitError: The adapter does not fit the features, the labels, the backbone or the prompt.
    """
    refuse_other_answers(description.dataset, parts.spec, folder)
    for modality, made_by in description.dataset.extractors.items():
        check_extractor(modality, made_by, parts.spec.extractors.get(modality), folder)
    for modality, width in parts.widths.items():
        if width != description.widths[modality]:
            raise MsekitError(
                f"the run was trained on {modality} features of width {description.widths[modality]}, these have "
                f"width {width}",
                where=folder,
                fix="Give the features it was trained with, by --source.",
            )
    if description.backbone.fingerprint != parts.backbone.fingerprint:
        raise MsekitError("the run was trained on other backbone weights", where=folder)
    if description.prompt_sha256 != parts.model.layout.sha256:
        raise MsekitError("the run was trained with another prompt", where=folder)
    tensors, _ = read_tensors(folder / ADAPTER)
    load_adapter(parts.model.adapter, tensors, folder / ADAPTER)
    # the train split's statistics, also where another data set is evaluated
    ways: dict[str, Any] = {str(modality): way for modality, way in description.features.items() if way is not None}
    for split, collator in parts.collators.items():
        own = replace(collator, **ways)
        parts.collators[split] = own.summarised() if collator.summaries else own
