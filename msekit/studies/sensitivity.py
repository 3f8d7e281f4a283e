"""`msekit sensitivity RUN`: how far a trained run's scores hang on the wording of its prompt and the order of labels.

The adapter was trained with one wording. Here the same adapter is tested with others that ask for the same answers:
paraphrases, and for emotions the label list in other orders. Every label keeps its number: an answer keeps its meaning.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.catalogue import DatasetSpec
from msekit.data.targets import refuse_several
from msekit.distributed.accelerator import accelerator_for
from msekit.errors import MsekitError
from msekit.evaluation.scoring import score_split
from msekit.model.prompt import PromptLayout
from msekit.reporter import Reporter
from msekit.studies.evaluate import open_run

WORDINGS = {
    ("erc", "en"): ("Emotion ({}): ", "Which emotion ({})? ", "The speaker's emotion, one of {}: ", "Label ({}): "),
    ("erc", "zh"): ("情绪（{}）：", "说话人的情绪是（{}）：", "请选择情绪（{}）："),
    ("msa", "en"): (
        "Sentiment ({low} negative, {high} positive)=",
        "Sentiment from {low} to {high}=",
        "How positive ({low} to {high})? Score=",
        "Sentiment ({high} positive, {low} negative)=",
    ),
    ("msa", "zh"): (
        "情感强度（{low}消极，{high}积极）=",
        "情感得分（{low}到{high}）=",
        "情感强度（{high}积极，{low}消极）=",
    ),
}
_SEED = 0


def wordings(spec: DatasetSpec, orders: int) -> dict[str, str]:
    """What is tried: a name for each prompt → the prompt; the run's own first.

    Args:
        spec: The data set.
        orders: How many other orders of the labels (emotions only), drawn by a fixed seed; fewer where there are not
            as many. They are asked for with the first of `WORDINGS`.
    """
    refuse_several(spec, "a test of other wordings")
    by_name = {"as trained": spec.task_prompt}
    if (spec.task, spec.language) not in WORDINGS:
        known = " and ".join(sorted({language for _, language in WORDINGS}))
        raise MsekitError(f"there are no other wordings of a prompt in '{spec.language}', only in {known}")
    ways = WORDINGS[spec.task, spec.language]
    if spec.range is not None:
        low, high = (f"{value:+.1f}" for value in spec.range)
        prompts = [way.format(low=low, high=high) for way in ways]
        return by_name | {f"wording {n}": text for n, text in enumerate(prompts, start=1) if text != spec.task_prompt}
    assert spec.labels is not None
    numbered = [f"{number} {label}" for number, label in enumerate(spec.labels)]
    for number, way in enumerate(ways, start=1):
        if (text := way.format(" ".join(numbered))) != spec.task_prompt:
            by_name[f"wording {number}"] = text
    rng = np.random.default_rng(_SEED)
    seen = {tuple(range(len(numbered)))}
    for number in range(1, min(orders, math.factorial(len(numbered)) - 1) + 1):
        while (places := tuple(rng.permutation(len(numbered)).tolist())) in seen:
            pass
        seen.add(places)
        by_name[f"order {number}"] = ways[0].format(" ".join(numbered[place] for place in places))
    return by_name


def sensitivity(
    run: Path, split: str = "test", orders: int = 3, *, source: Path | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Test a run with every wording.

    Args:
        run: The run folder.
        split: Which samples.
        orders: Other orders of the labels.
        source: Where the features lie now.
        reporter: Where progress goes; None for the terminal.

    Returns:
        `{"dataset", "backbone", "seed", "split", "samples", "prompts": {name: prompt}, "metrics": {name: metrics},
        "spread": {metric: {"mean", "std", "min", "max"}}}`; the spread is over all prompts, the run's own included.

    Raises:
        MsekitError: As `evaluate`.
    """
    reporter = reporter or Reporter()
    _, config, parts = open_run(run, (split,), source=source, reporter=reporter)
    accelerator, backbone = accelerator_for(parts.backbone.device), parts.backbone
    prompts, metrics = wordings(parts.spec, orders), {}
    for name, prompt in prompts.items():
        model = parts.model.laid_out_as(PromptLayout(backbone.encode, backbone.bos, prompt, config.layout))
        size = parts.evaluation_batch
        scores = score_split(model, parts.collators[split], size, accelerator, reporter, name)
        metrics[name] = scores.metrics(parts.spec, config.evaluation.estimate)
    return {
        "dataset": parts.spec.name,
        "backbone": config.backbone,
        "seed": config.seed,
        "split": split,
        "samples": len(parts.truths(split)),
        "prompts": prompts,
        "metrics": metrics,
        "spread": spread(metrics),
    }


def spread(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, least and largest value of every scalar metric over the prompts that define it."""
    spreads = {}
    for name in (name for name, value in metrics["as trained"].items() if not isinstance(value, dict)):
        values = [float(scores[name]) for scores in metrics.values() if scores[name] is not None]
        if len(values) > 1:
            edges = {"min": min(values), "max": max(values)}
            spreads[name] = {"mean": statistics.fmean(values), "std": statistics.stdev(values)} | edges
    return spreads
