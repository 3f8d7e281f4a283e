"""Train a baseline on the kit's cache and leave what `report`, `compare` and the HTML page read.

A run's folder is like an adapter's, without weights: report.json, predictions-test.jsonl, metrics.jsonl, adapter.json;
and the state to go on from, as long as it is unfinished.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msekit.backbones.precision import default_device
from msekit.baselines.catalogue import BASELINES, READS_LLM, check_text
from msekit.baselines.finished import finished_baseline, kind_of
from msekit.baselines.llm_linear import fit_llm_linear
from msekit.baselines.rival_data import RivalData, cannot_serve
from msekit.baselines.text_linear import answer, best_of
from msekit.baselines.texts import TextFrom, open_texts
from msekit.baselines.trainer import Trainer
from msekit.data.cache.cache import Cache
from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.open_data import open_data
from msekit.data.readers.chosen_folds import refuse_unchosen
from msekit.data.targets import refuse_several
from msekit.errors import MsekitError
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import collapsed_to, metrics_of
from msekit.reporter import Reporter
from msekit.runs.description import FORMAT, Baseline, write_description
from msekit.runs.files import METRICS, STATE, write_lines
from msekit.runs.lock import held_for_training
from msekit.runs.machine import peak_memory, versions
from msekit.runs.predictions import prediction_line, write_predictions
from msekit.runs.report import Report, write_report
from msekit.version import __version__

_OF_A_MODEL = (
    *("layer", "reads", "even_blocks", "valid_by_layer", "backbone_fingerprint", "dtype"),
    *("text_from", "text_layer", "text_sentence", "apart"),
)
WORDS = TextFrom()
FEATURE_DTYPE: Literal["float32"] = "float32"


class CannotServeError(MsekitError):
    """A data set lacks what a baseline needs; others may be run on it."""


def run_baseline(
    name: str,
    spec: DatasetSpec,
    seed: int,
    output: Path,
    *,
    backbone: str | None = None,
    text: TextFrom | None = None,
    epochs: int = 30,
    limit_train: int | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train one seed, test its best epoch, leave a run folder; a finished one of the same kind is reused.

    Args:
        name: One of `BASELINES`.
        spec: The data set.
        seed: Decides weights, order and noise.
        output: The seed's folder. An unfinished run in it goes on behind its last epoch.
        backbone: The LLM whose hidden states are read; None for a baseline that reads none.
        text: What is read of the text; None for words.
        epochs: Most epochs; training ends after `trainer.PATIENCE` without improvement on validation.
        limit_train: Train on this many samples, the same for every seed and as `data.limit_train`.
        reporter: Where progress goes.

    Returns:
        The content of `report.json`.

    Raises:
        CannotServeError: The data set lacks what the baseline needs.
        MsekitError: No such baseline, a backbone too many or too few, unusable data, or the folder holds a run of
            another kind.
    """
    text = text or TextFrom(backbone=backbone)
    check_text(name, text.backbone, text.kind, text.sentence, bool(text.context or text.limit))
    refuse_several(spec, "a baseline")
    refuse_unchosen(spec)
    kind = kind_of(name, spec.name, seed, text.backbone, epochs, limit_train, text.context, text.limit)
    finished_baseline(output, kind)
    spec, cache = open_data(spec, FEATURE_DTYPE, reporter)
    kind["data_fingerprint"] = cache.info.fingerprint
    asked = {"text_from": text.kind, "text_layer": text.layer, "text_sentence": text.sentence}
    if (report := finished_baseline(output, kind)) is not None:
        refuse_other_text(output, report.document(), name, text)
        return report.document()
    if (reason := cannot_serve(BASELINES[name], spec, cache)) is not None:
        raise CannotServeError(f"{name} cannot be run on {spec.name}: {reason}")
    with held_for_training(output, resume=True):
        outcome = _outcome(kind, asked, spec, cache, text, output, reporter)
        report_of = _write(kind, spec, cache, output, outcome)
        shutil.rmtree((output / STATE).parent, ignore_errors=True)
    return report_of


def _outcome(
    kind: dict[str, Any],
    asked: dict[str, Any],
    spec: DatasetSpec,
    cache: Cache,
    text: TextFrom,
    output: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train: what `_write` needs."""
    name, size, limit = kind["adapter"], len(cache.split("train")), kind["limit_train"]
    entry, chosen, started = BASELINES[name], np.arange(size), time.perf_counter()
    if limit is not None:
        chosen = np.sort(np.random.default_rng(0).permutation(size)[:limit])
        if "dialogues" in entry.needs and len(chosen) < size:
            reporter.note(f"{name} sees dialogues without the utterances that --limit-train leaves out")
    if entry.network:
        texts = open_texts(spec, cache, chosen, text, entry.level, reporter)
        data = RivalData(spec, cache, chosen, entry, texts)
        return _trained(Trainer(name, data, kind["seed"], kind["epochs"], output, kind | asked, reporter))
    linear = fit_llm_linear(spec, cache, chosen, text, reporter) if name == READS_LLM else _linear(spec, cache, chosen)
    return linear | {"train_seconds": time.perf_counter() - started}


def _trained(trainer: Trainer) -> dict[str, Any]:
    """What training gave, and what the report says of the model."""
    trained = trainer.fit()
    apart = [trainer.entry.apart] if trainer.entry.apart else []
    if trainer.entry.network == "lfmim:LFMIM" and trainer.data.labels_by_modality["train"] is None:
        apart.append("the sample's label for every modality")
    return {
        "scores": trained.scores,
        "shuffled": trained.shuffled if trainer.data.sizes.widths else None,
        "history": trained.progress.history,
        "best_epoch": trained.progress.best_epoch,
        "train_seconds": trained.progress.seconds,
        "trainable_parameters": trained.parameters,
        "apart": "; ".join(apart) or None,
        **trainer.data.texts.said,
    }


def refuse_other_text(output: Path, report: dict[str, Any], name: str, text: TextFrom) -> None:
    """Refuse a finished run of a network that read something else of the text.

    Raises:
        MsekitError: It did.
    """
    if not BASELINES[name].network:
        return
    wanted = "llm" if BASELINES[name].level == "llm" else text.kind
    pairs: dict[str, Any] = {"text_from": (report.get("text_from") or "words", wanted)}
    if text.layer is not None:
        pairs["text_layer"] = (report.get("text_layer"), text.layer)
    if report.get("text_sentence") is not None:
        pairs["text_sentence"] = (report["text_sentence"], text.sentence)
    for key, (found, asked) in pairs.items():
        if found != asked:
            raise MsekitError(
                f"the folder holds the finished run of another baseline ({key}: {found} → {asked})",
                where=output,
                fix="Choose another --output.",
            )


def _linear(spec: DatasetSpec, cache: Cache, chosen: np.ndarray) -> dict[str, Any]:
    splits = {name: (cache.split(name).texts, cache.split(name).labels) for name in SPLITS}
    train = ([splits["train"][0][place] for place in chosen], splits["train"][1][chosen])
    model, strength, _ = best_of(spec, train, splits["valid"])
    return {"scores": model(splits["test"][0]), "shuffled": None, "history": [], "best_epoch": 0, "strength": strength}


def _write(
    kind: dict[str, Any], spec: DatasetSpec, cache: Cache, output: Path, outcome: dict[str, Any]
) -> dict[str, Any]:
    """The run's folder; its report last."""
    split, metric_fn = cache.split("test"), metrics_of(spec)
    predictions = answer(outcome["scores"])
    collapsed = collapsed_to(predictions.tolist())
    named = (lambda value: (spec.labels or ())[int(value)]) if spec.labels else float
    shuffled = outcome["shuffled"]
    without = int(np.isnan(split.labels).sum())
    document = kind | {
        **({"without_label": without} if without else {}),
        "recipe": "baseline",
        "split": "test",
        "fold": spec.fold,
        "samples": len(split),
        "estimate": "argmax" if spec.labels else "direct",
        "metrics": metric_fn(split.labels, predictions),
        "integrity": None if shuffled is None else {"metrics": metric_fn(split.labels, answer(shuffled))},
        "confidence": bootstrap(split.labels, predictions, metric_fn),
        "collapsed_to": None if collapsed is None else named(collapsed),
        "best_epoch": outcome["best_epoch"],
        "strength": outcome.get("strength"),
        **{key: outcome[key] for key in _OF_A_MODEL if key in outcome},
        "trainable_parameters": outcome.get("trainable_parameters", 0),
        "train_seconds": outcome["train_seconds"],
        "peak_memory_bytes": peak_memory(default_device()),
        "versions": versions(),
    }
    report = Report.model_validate(document)
    truths = [None if np.isnan(truth) else named(truth) for truth in split.labels]
    lines = []
    for place, id in enumerate(split.ids):
        shares = outcome["scores"][place].tolist() if spec.labels else []
        scores = dict(zip(spec.labels or (), shares, strict=True))
        lines.append(prediction_line(id, named(predictions[place]), scores, truths[place]))
    report = report.model_copy(update={"predictions_sha256": write_predictions(output, lines)})
    write_lines(output / METRICS, outcome["history"])
    described = Baseline(kind="baseline", format=FORMAT, msekit=__version__, name=report.adapter, dataset=spec)
    write_description(output, described)
    write_report(output, report)
    return report.document()
