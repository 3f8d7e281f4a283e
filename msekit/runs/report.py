"""`report.json`: what a finished run says of itself, and what makes runs comparable. One schema, writer and reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msekit.errors import MsekitError
from msekit.json_file import read_json
from msekit.runs.files import CONFIG, REPORT, check_text, opened, sealed, write_json
from msekit.runs.folder import find_runs
from msekit.words import first_fault
from msekit.yaml_file import read_mapping

_Value = Annotated[float, Field(ge=-1e9, le=1e9)]
Metrics = dict[str, _Value | dict[str, _Value | None] | None]
"""Name → value (a fraction; `mae` in label units), a value by label, or None where it is undefined. Of several targets
the names are `target:metric`, and `mean` over them."""

NAMES_A_RUN = {"dataset": None, "backbone": None, "adapter": None, "recipe": None}
HOW_IT_IS_TESTED = {"estimate": None, "split": None}
SETS_IT_APART = {
    "without": None,
    "limit_train": None,
    "quantization": "none",
    "ablate": None,
    "layout": "paper",
    "context": None,
    "on_missing": "zero",
    "modality_dropout": None,
    "options": None,
    "continued": None,
    "layer": None,
    "reads": None,
    "fold": None,
    "text_from": "words",
    "text_layer": None,
    "text_sentence": "last",
    "text_limit": None,
}
COMPARABLE = NAMES_A_RUN | HOW_IT_IS_TESTED | SETS_IT_APART
"""What runs must agree in to have a common mean: key → its usual value, at which it says nothing. A key that a report
lacks, or that is empty there, counts as the usual value."""


def scalars(metrics: Metrics) -> dict[str, float | None]:
    """The metrics that are one number, without the tables by label."""
    return {name: value for name, value in metrics.items() if not isinstance(value, dict)}


class Integrity(BaseModel):
    """The same adapter with every sample's audio and vision taken from another one."""

    metrics: Metrics


class Weights(BaseModel):
    """Fingerprints of the loaded backbone."""

    before: str
    after: str


class Report(BaseModel):
    """The content of `report.json`; `evaluate --format json` prints the same keys.

    A baseline leaves out what only an adapter has. Keys of a later version are kept when a report is read; none is
    written that does not stand here.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    dataset: str
    backbone: str
    """`none` for a baseline that reads none."""
    quantization: str | None = None
    dtype: str | None = None
    """torch's name of the type that the backbone was held in."""
    passes: dict[str, Any] | None = None
    """The shorter ways through the frozen backbone: those used, and those refused with the reason."""
    adapter: str
    """Its name, or a baseline's."""
    ablate: str | None = None
    recipe: str
    seed: int
    split: str
    fold: int | None = None
    """Of a cross-validation: the one that is the test split."""
    samples: int | None = None
    without_label: int | None = None
    """Of them, those that are predicted and count in no metric; not there where all have a label."""
    estimate: str
    metrics: Metrics
    confidence: dict[str, list[_Value] | None] | None = None
    """Metric → 95 % bootstrap interval over the samples."""
    alone: dict[str, Metrics] | None = None
    """Of an adapter with an opinion: the metrics of the LLM without it, `llm`, and of the `opinion` without the LLM."""
    llm_weight: float | dict[str, float] | None = None
    """The power of the LLM's probabilities beside the opinion's, fitted on validation; 0 where it has no say.
    Of several targets by question: `emotion`, `signs.tears`."""
    predicted: dict[str, int] | None = None
    """Label → how often it is predicted, of several targets `target:label`; labels that never are are left out."""
    collapsed_to: str | float | None = None
    """The one label that is predicted for every sample."""
    without: list[str] = []
    layout: str | None = None
    limit_train: int | None = None
    on_missing: str | None = None
    modality_dropout: float | None = None
    options: list[str] = []
    """Training options that are not the recipe's, as `--set` takes them."""
    incomplete_samples: int | None = None
    context: int | None = None
    truncated_texts: int | None = None
    data_fingerprint: str | None = None
    backbone_fingerprint: str | None = None
    prompt_sha256: str | None = None
    predictions_sha256: str | None = None
    """Of the file of test predictions that belongs to the report."""
    integrity: Integrity | None = None
    """None for a model that reads neither audio nor vision."""
    best_epoch: int | None = None
    backbone_weights: Weights | None = None
    epochs: int | None = None
    """Trained; of a baseline, the most that were allowed."""
    continued: list[str] | None = None
    """Where the run had ended before it was given more epochs, `after epoch 3`: its learning rate rose once more."""
    dropped_train: int | None = None
    """Training samples left out for lack of a modality."""
    strength: float | None = None
    """Of a linear baseline: its regularisation."""
    layer: int | None = None
    """Of the baseline `llm-linear`: the layer whose hidden states it reads."""
    reads: list[str] | None = None
    """Of the same: text, and audio and vision where validation is better with them."""
    even_blocks: bool | None = None
    """Of the same: whether its blocks of features were scaled to the same total variance."""
    valid_by_layer: dict[str, float] | None = None
    """Of the same: layer → the best value of the key metric on validation."""
    text_from: str | None = None
    """Of another baseline: what it reads of a text, `words`, `file` or `backbone`; `llm` if trained through one."""
    text_layer: int | None = None
    """Of the same: the LLM's layer."""
    text_sentence: str | None = None
    """Of the same: which state stands for a whole text, `last` or `mean`."""
    text_limit: int | None = None
    """Of the same: the longest text in tokens, where that is not the data set's own."""
    apart: str | None = None
    """Of the same: what is otherwise than in its paper."""
    trainable_parameters: int | None = None
    peak_memory_bytes: int | None = None
    """Of a GPU what tensors took, else what the process did."""
    peak_memory_reserved_bytes: int | None = None
    """Of a GPU: what the allocator held for them, gaps included; what no other process could have."""
    train_samples_per_s: float | None = None
    train_seconds: float | None = None
    train_cpu_seconds: float | None = None
    opinion_seconds: float | None = None
    """Wall time in which the opinion trained alone, which `train_seconds` leaves out."""
    skipped_steps: int | None = None
    """Optimiser steps that changed nothing: their gradient overflowed beside an LLM in fp16."""
    machine: str | None = None
    versions: dict[str, str] | None = None
    shuffled: bool | None = None
    """Of an evaluation: every sample was given another one's audio and vision."""
    tested_without: list[str] | None = None
    """Of an evaluation: modalities withheld from every sample."""

    def document(self) -> dict[str, Any]:
        """The keys that were set, as JSON has them."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def scalars(self) -> dict[str, float | None]:
        """The metrics that are one number."""
        return scalars(self.metrics)

    @property
    def few_classes(self) -> str | None:
        """What to say where fewer than half of the classes are ever recognised; None where more are."""
        table = self.metrics.get("per_class_f1")
        by_class = {label: f1 for label, f1 in table.items() if f1 is not None} if isinstance(table, dict) else {}
        never = [label for label, f1 in by_class.items() if f1 == 0]
        if 2 * len(never) <= len(by_class):
            return None
        return f"{len(by_class) - len(never)} of {len(by_class)} classes recognised, none of {', '.join(never)}"

    def unusual(self, name: str) -> Any:
        """The value of one of the `COMPARABLE` keys; None where it is empty or the usual one."""
        value = getattr(self, name)
        return None if value == COMPARABLE[name] else value or None


def write_report(folder: Path, report: Report) -> None:
    """Write a folder's `report.json`, which makes it a finished run."""
    assert not report.model_extra, f"unknown to the schema: {', '.join(report.model_extra)}"
    write_json(folder / REPORT, sealed(report.document()))


def read_report(folder: Path) -> Report | None:
    """A run's `report.json`; None where training has not finished yet.

    Raises:
        MsekitError: It is damaged, or lacks a key that every report has.
    """
    where = folder / REPORT
    if not where.is_file():
        return None
    try:
        raw = read_json(where, "report")
        return Report.model_validate(opened(raw, where) if isinstance(raw, dict) else raw)
    except ValidationError as error:
        first, key, fault = first_fault(error)
        what = f"has no '{key}'" if first["type"] == "missing" else f"is damaged: {fault}"
        raise MsekitError(f"the report {what}", where=where, fix="Evaluate the run again.") from error


@dataclass(frozen=True)
class RunReport:
    """One finished run: its folder, its report, and its resolved settings if they are there."""

    path: Path
    report: Report
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted key → value of config.yaml."""

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.report.seed

    @property
    def key(self) -> tuple[str, ...]:
        """What runs must share to be averaged, as text."""
        return tuple(json.dumps(self.report.unusual(name)) for name in COMPARABLE)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The report's keys, as JSON has them."""
        return self.report.document()


def collect(runs: Sequence[Path]) -> list[RunReport]:
    """Read the reports of run folders; a folder that is named twice counts once.

    Args:
        runs: A seed's folder or a folder that holds `seed-*` folders, each.

    Raises:
        MsekitError: A folder holds no finished run, or a report is unreadable or incomplete.
    """
    folders = {folder.resolve(): folder for path in runs for folder in find_runs(Path(path))[0]}
    return [_finished(folder) for folder in folders.values()]


def _finished(folder: Path) -> RunReport:
    report, config = read_report(folder), folder / CONFIG
    assert report is not None, "find_runs names finished runs"
    settings: dict[str, Any] = {}
    if config.is_file():
        settings = read_mapping(config, "run's configuration")
        check_text(config.read_bytes(), config)
    return RunReport(folder, report, flatten(settings))


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings → dotted keys."""
    if not isinstance(settings, dict):
        return {prefix: settings} if prefix else {}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
