"""Train a baseline on the kit's cache and leave what `report`, `compare` and the HTML page read.

A run's folder is like an adapter's, without weights: report.json, predictions-test.jsonl, metrics.jsonl, adapter.json.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from msekit.backbones.catalogue import canonical_name
from msekit.baselines.catalogue import BASELINES, check_backbone
from msekit.baselines.llm_linear import fit_llm_linear
from msekit.baselines.models import network_of
from msekit.baselines.text_linear import answer, best_of
from msekit.data.batches.batch import Batch, Collator, Noise, global_batches
from msekit.data.batches.kept_frames import KeptFrames
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.cache.cache import Cache
from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.open_data import open_data
from msekit.errors import MsekitError, nearest
from msekit.evaluation.metrics import bootstrap, collapsed_to, higher_is_better, metrics_of
from msekit.evaluation.scoring import SHUFFLE_SEED
from msekit.reporter import Reporter
from msekit.runs.description import FORMAT, Baseline, write_description
from msekit.runs.files import METRICS, write_lines
from msekit.runs.machine import peak_memory, versions
from msekit.runs.predictions import prediction_line, write_predictions
from msekit.runs.report import Report, read_report, write_report
from msekit.settings.config import DataConfig
from msekit.version import __version__

LEARNING_RATE, BATCH_SIZE, PATIENCE = 1e-3, 32, 8
_OF_LLM_LINEAR = ("layer", "reads", "even_blocks", "valid_by_layer", "backbone_fingerprint", "dtype")


def run_baseline(
    name: str,
    spec: DatasetSpec,
    seed: int,
    output: Path,
    *,
    backbone: str | None = None,
    epochs: int = 30,
    limit_train: int | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train one seed, test its best epoch, leave a run folder; a finished one of the same kind is reused.

    Args:
        name: One of `BASELINES`.
        spec: The data set.
        seed: Decides weights, order and noise.
        output: The seed's folder.
        backbone: The LLM whose hidden states `llm-linear` reads; None for any other baseline.
        epochs: Most epochs; training ends after `PATIENCE` without improvement on validation.
        limit_train: Train on this many samples, the same for every seed and as `data.limit_train`.
        reporter: Where progress goes.

    Returns:
        The content of `report.json`.

    Raises:
        MsekitError: No such baseline, a backbone too many or too few, unusable data, or the folder holds a finished
            run of another kind.
    """
    if name not in BASELINES:
        raise MsekitError(f"unknown baseline '{name}'", fix=nearest(name, BASELINES))
    check_backbone(name, backbone)
    spec, cache = open_data(spec, "float32", reporter)
    kind = {
        "adapter": name,
        "backbone": "none" if backbone is None else canonical_name(backbone),
        "dataset": spec.name,
        "data_fingerprint": cache.info.fingerprint,
        "seed": seed,
        "epochs": epochs if BASELINES[name] else None,
        "limit_train": limit_train,
    }
    if (report := read_report(output)) is not None:
        return _finished(output, report.document(), kind)
    size = len(cache.split("train"))
    chosen = np.arange(size)
    if limit_train is not None:
        chosen = np.sort(np.random.default_rng(0).permutation(size)[:limit_train])
    started = time.perf_counter()
    if backbone is not None:
        outcome = fit_llm_linear(spec, cache, chosen, backbone, reporter)
    elif name == "text-linear":
        outcome = _linear(spec, cache, chosen)
    else:
        outcome = Trainer(name, spec, cache, chosen, seed, epochs, reporter).fit()
    outcome["train_seconds"] = time.perf_counter() - started
    return _write(kind, spec, cache, output, outcome)


def _finished(output: Path, report: dict[str, Any], kind: dict[str, Any]) -> dict[str, Any]:
    """The report of a finished run.

    Raises:
        MsekitError: It is of another kind.
    """
    for key, value in kind.items():
        if report.get(key) != value:
            raise MsekitError(
                f"the folder holds the finished run of another baseline: {key} is {report.get(key)}, not {value}",
                where=output,
                fix="Choose another --output.",
            )
    return report


def _linear(spec: DatasetSpec, cache: Cache, chosen: np.ndarray) -> dict[str, Any]:
    splits = {name: (cache.split(name).texts, cache.split(name).labels) for name in SPLITS}
    train = ([splits["train"][0][place] for place in chosen], splits["train"][1][chosen])
    model, strength, _ = best_of(spec, train, splits["valid"])
    return {"scores": model(splits["test"][0]), "shuffled": None, "history": [], "best_epoch": 0, "strength": strength}


def words_of(text: str, language: str) -> list[str]:
    """Lower-case words; characters for Chinese."""
    return list(text) if language == "zh" else re.findall(r"\w+", text.lower())


class Trainer:
    """A neural baseline in training; arguments as for `run_baseline`, and the positions to train on."""

    def __init__(
        self, name: str, spec: DatasetSpec, cache: Cache, chosen: np.ndarray, seed: int, epochs: int, reporter: Reporter
    ) -> None:
        self.spec, self.chosen, self.seed, self.epochs, self.reporter = spec, chosen, seed, epochs, reporter
        texts = {split: [words_of(text, spec.language) for text in cache.split(split).texts] for split in SPLITS}
        numbers = {word: place for place, word in enumerate(sorted({w for i in chosen for w in texts["train"][i]}), 2)}
        settings, infos = DataConfig.model_validate({}), {"audio": cache.info.audio, "vision": cache.info.vision}
        ways = {
            name: Preprocessor.of(info, True, settings.trim, settings.max_frames) if info.width else None
            for name, info in infos.items()
        }
        self.noise = settings.noise
        self.collators = {
            split: Collator(
                cache.split(split),
                [[numbers.get(word, 1) for word in words[: spec.text_limit]] or [1] for words in texts[split]],
                cache.split(split).labels,
                ways["audio"],
                ways["vision"],
                kept=KeptFrames(cache.split(split), ways),
            )
            for split in SPLITS
        }
        torch.manual_seed(seed)
        widths = {name: info.width for name, info in infos.items() if info.width}
        self.model = network_of(name)(len(numbers) + 2, widths, len(spec.labels) if spec.labels else 1)

    def fit(self) -> dict[str, Any]:
        """Train to the best validation epoch and score the test split with it."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        sign = 1.0 if higher_is_better(self.spec.key_metric) else -1.0
        best: dict[str, Any] = {"value": -np.inf, "epoch": 0, "state": {}}
        history: list[dict[str, Any]] = []
        for epoch in range(self.epochs):
            loss = self._epoch(optimizer, epoch)
            metrics, valid_loss = self._validate()
            value = sign * metrics[self.spec.key_metric]
            if better := value > best["value"]:
                state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
                best = {"value": value, "epoch": epoch + 1, "state": state}
            line = {"epoch": epoch + 1, "train_loss": loss, "valid_loss": valid_loss, "valid": metrics, "best": better}
            history.append(line)
            if epoch + 1 - best["epoch"] >= PATIENCE:
                break
        self.model.load_state_dict(best["state"])
        scores = self._scores("test")
        self.collators["test"] = self.collators["test"].shuffled(SHUFFLE_SEED)
        return {
            "scores": scores,
            "shuffled": self._scores("test"),
            "history": history,
            "best_epoch": best["epoch"],
            "trainable_parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def _loss(self, batch: Batch, outputs: torch.Tensor, split: str) -> torch.Tensor:
        """Cross-entropy (erc) or L1 (msa), the mean over the batch."""
        truth = torch.from_numpy(self.collators[split].split.labels[batch.index.numpy()])
        if self.spec.labels:
            return F.cross_entropy(outputs, truth.long())
        return (outputs[:, 0] - truth.float()).abs().mean()

    def _epoch(self, optimizer: torch.optim.Optimizer, epoch: int) -> float:
        self.model.train()
        collator = replace(self.collators["train"], noise=Noise(self.noise, self.seed, epoch))
        tokens, frames = collator.lengths()
        total = 0.0
        batches = global_batches(tokens[self.chosen], frames[self.chosen], BATCH_SIZE, self.seed, epoch)
        with self.reporter.bar(f"epoch {epoch + 1}", len(self.chosen)) as advance:
            for positions in batches:
                batch = collator([int(self.chosen[place]) for place in positions])
                loss = self._loss(batch, self.model(batch), "train")
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                total += loss.item() * len(positions)
                advance(len(positions))
        return total / len(self.chosen)

    def _validate(self) -> tuple[dict[str, Any], float]:
        scores, truth = self._scores("valid"), self.collators["valid"].split.labels
        if self.spec.labels:
            loss = float(-np.log(scores[np.arange(len(truth)), truth.astype(np.int64)].clip(1e-12)).mean())
        else:
            loss = float(np.abs(scores - truth).mean())
        return metrics_of(self.spec)(truth, answer(scores)), loss

    @torch.no_grad()
    def _scores(self, split: str) -> np.ndarray:
        """Class probabilities (N, C), or intensities (N,) clipped to the range."""
        self.model.eval()
        collator = self.collators[split]
        starts = range(0, len(collator.split), BATCH_SIZE)
        batches = [list(range(start, min(start + BATCH_SIZE, len(collator.split)))) for start in starts]
        outputs = torch.cat([self.model(collator(positions)) for positions in batches])
        if self.spec.range is None:
            return outputs.softmax(dim=1).double().numpy()
        return outputs[:, 0].double().numpy().clip(*self.spec.range)


def _write(
    kind: dict[str, Any], spec: DatasetSpec, cache: Cache, output: Path, outcome: dict[str, Any]
) -> dict[str, Any]:
    """The run's folder; its report last."""
    split, metric_fn = cache.split("test"), metrics_of(spec)
    predictions = answer(outcome["scores"])
    collapsed = collapsed_to(predictions.tolist())
    named = (lambda value: (spec.labels or ())[int(value)]) if spec.labels else float
    shuffled = outcome["shuffled"]
    document = kind | {
        "recipe": "baseline",
        "split": "test",
        "samples": len(split),
        "estimate": "argmax" if spec.labels else "direct",
        "metrics": metric_fn(split.labels, predictions),
        "integrity": None if shuffled is None else {"metrics": metric_fn(split.labels, answer(shuffled))},
        "confidence": bootstrap(split.labels, predictions, metric_fn),
        "collapsed_to": None if collapsed is None else named(collapsed),
        "best_epoch": outcome["best_epoch"],
        "strength": outcome.get("strength"),
        **{key: outcome[key] for key in _OF_LLM_LINEAR if key in outcome},
        "trainable_parameters": outcome.get("trainable_parameters", 0),
        "train_seconds": outcome["train_seconds"],
        "peak_memory_bytes": peak_memory(torch.device("cpu")),
        "versions": versions(),
    }
    report = Report.model_validate(document)
    lines = []
    for place, id in enumerate(split.ids):
        shares = outcome["scores"][place].tolist() if spec.labels else []
        scores = dict(zip(spec.labels or (), shares, strict=True))
        lines.append(prediction_line(id, named(predictions[place]), scores, named(split.labels[place])))
    write_predictions(output, lines)
    write_lines(output / METRICS, outcome["history"])
    described = Baseline(kind="baseline", format=FORMAT, msekit=__version__, name=report.adapter, dataset=spec)
    write_description(output, described)
    write_report(output, report)
    return report.document()
