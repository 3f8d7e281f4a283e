"""`evaluate --calibrate`: which point estimate and temperature, chosen on validation, and what they change on test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import refuse_several
from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.metrics import goodness, metrics_of
from msekit.evaluation.reliability import describe_calibration, fit_temperature, needs_scipy, tempered
from msekit.evaluation.scoring import Scores, score_split
from msekit.evaluation.units import percent
from msekit.reporter import Reporter
from msekit.reports.summary import show_cases
from msekit.runs.description import read_spec_of
from msekit.runs.files import CALIBRATION, write_json
from msekit.runs.folder import find_run
from msekit.settings.choices import ESTIMATES
from msekit.studies.evaluate import open_run

TEMPERED = ("mean", "median")
"""A temperature moves these; greedy and argmax answer the same at any."""


def calibrate(
    run: Path, split: str = "test", *, source: Path | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Fit the temperature and choose the point estimate on validation; apply both to a split.

    The result is also kept as `calibration.json` in the run's folder.

    Args:
        run: The run folder.
        split: Where they are applied.
        source: Where the features lie now.
        reporter: Where progress goes; None for the terminal.

    Returns:
        `{"temperature", "chosen", "valid": {estimate: metrics}, "metrics": {estimate: metrics}, "calibration":
        {"as_trained", "tempered"}, …}`; a tempered estimate is called `mean, tempered`.

    Raises:
        MsekitError: As `evaluate`; scipy is not installed.
    """
    needs_scipy()
    reporter = reporter or Reporter()
    refuse_several(read_spec_of(find_run(run)), "calibration")
    folder, config, parts = open_run(run, ("valid", split), source=source, reporter=reporter)
    accelerator = accelerator_for(parts.backbone.device)
    scores = {
        name: score_split(parts.model, parts.collators[name], parts.evaluation_batch, accelerator, reporter, name)
        for name in dict.fromkeys(("valid", split))
    }
    valid = scores["valid"]
    log_NK = valid.labels.log_probabilities(valid.edges)
    temperature = fit_temperature(log_NK, valid.labels.indices(valid.truths))
    by_split = {name: estimates(split_scores, parts.spec, temperature) for name, split_scores in scores.items()}
    key = parts.spec.key_metric
    chosen = max(by_split["valid"], key=lambda name: goodness(key, by_split["valid"][name][key]))
    distributions = {
        "as_trained": tempered(scores[split].labels.log_probabilities(scores[split].edges), 1.0),
        "tempered": tempered(scores[split].labels.log_probabilities(scores[split].edges), temperature),
    }
    report = {
        "dataset": parts.spec.name,
        "backbone": config.backbone,
        "seed": config.seed,
        "data_fingerprint": parts.cache.info.fingerprint,
        "split": split,
        "samples": len(scores[split].truths),
        "temperature": temperature,
        "key_metric": key,
        "trained_with": config.evaluation.estimate,
        "chosen": chosen,
        "valid": by_split["valid"],
        "metrics": by_split[split],
        "calibration": {
            name: describe_calibration(distribution, valid.labels.values, scores[split].truths, parts.spec)
            for name, distribution in distributions.items()
        },
    }
    if accelerator.is_main_process:
        write_json(folder / CALIBRATION, report)
    return report


def estimates(scores: Scores, spec: DatasetSpec, temperature: float) -> dict[str, dict[str, Any]]:
    """The metrics of every point estimate, as trained and with the temperature where that moves it."""
    metric_fn, labels = metrics_of(spec), scores.labels
    by_name: dict[str, dict[str, Any]] = {
        name: metric_fn(scores.truths, scores.predictions(name)) for name in ESTIMATES[spec.task]
    }
    distribution_NK = tempered(labels.log_probabilities(scores.edges), temperature)
    for name in (name for name in TEMPERED if name in ESTIMATES[spec.task]):
        predictions = labels.point(distribution_NK, name)
        by_name[f"{name}, tempered"] = metric_fn(scores.truths, predictions)
    return by_name


def show_calibration(report: dict[str, Any], reporter: Reporter) -> None:
    """Show the estimates side by side, what validation chose, and the calibration error."""
    marked = {
        name + (" (chosen on validation)" if name == report["chosen"] else ""): metrics
        for name, metrics in report["metrics"].items()
    }
    show_cases("estimate", report | {"metrics": marked}, reporter)
    before, after = (percent(report["calibration"][name]["ece"]) for name in ("as_trained", "tempered"))
    reporter.show(
        f"temperature {report['temperature']:.3f}, fitted on validation; calibration error {before} as trained, "
        f"{after} tempered"
    )
