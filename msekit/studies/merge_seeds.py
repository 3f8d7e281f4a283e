"""Merge seeds: the average of their weights, beside the best of them and beside an ensemble of their scores.

The ensemble averages the distributions over labels, sample by sample; it costs one pass per seed. The average costs
one pass, but adapters that were initialised differently need not lie in one basin: look before using it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from msekit.adapters.weights import load_adapter
from msekit.data.targets import refuse_several
from msekit.distributed.accelerator import accelerator_for
from msekit.errors import MsekitError
from msekit.evaluation.metrics import higher_is_better
from msekit.evaluation.scoring import Scores, score_split
from msekit.json_file import read_json_lines
from msekit.model.labels import LabelSpace
from msekit.reporter import Reporter
from msekit.runs.config import read_config, write_config
from msekit.runs.description import read_description, read_spec_of, without_places, write_description
from msekit.runs.files import ADAPTER, METRICS
from msekit.runs.folder import find_runs
from msekit.runs.identity import settings_of
from msekit.runs.lock import held_for_training
from msekit.runs.report import flatten
from msekit.runs.tensors import read_tensors, write_tensors
from msekit.settings.config import RunConfig
from msekit.studies.evaluate import open_run
from msekit.training.build import Parts
from msekit.words import reason

_ALIKE = (
    "backbone",
    "dataset",
    "adapter",
    "widths",
    "features",
    "text_dim",
    "prompt_sha256",
    "estimate",
    "data_fingerprint",
    "text_limit",
    "context",
    "on_missing",
    "layout",
)
"""Keys of adapter.json in which runs must agree to be averaged."""


class Averaging(TypedDict):
    """What `msekit average --format json` prints; metrics as in a report."""

    split: str
    samples: int
    estimate: str
    key_metric: str
    runs: list[dict[str, Any]]
    """`{"run", "seed", "metrics"}` of each."""
    best: dict[str, Any]
    """The one that was best on the validation split."""
    average: dict[str, Any]
    """Metrics of the averaged weights."""
    ensemble: dict[str, Any]
    """Metrics of the averaged scores."""
    collapsed_to: str | None
    """The one label that the averaged weights answer to every sample."""


@dataclass
class Member:
    """One of the runs."""

    folder: Path
    seed: int
    tensors: dict[str, Tensor]
    validation: float | None
    """The key metric of its best epoch on the validation split."""


def average_runs(
    runs: Sequence[Path],
    output: Path | None = None,
    *,
    split: str = "test",
    source: Path | None = None,
    reporter: Reporter | None = None,
) -> Averaging:
    """Average the weights of runs and compare.

    Args:
        runs: Seeds' folders, or folders that hold them.
        output: Where the averaged run goes; None to compare only.
        split: What to compare on.
        source: Where the features lie now.
        reporter: Where progress goes; None for the terminal.

    Returns:
        The document of `msekit average --format json`.

    Raises:
        MsekitError: Fewer than two runs, or runs that differ in more than their seed.
    """
    folders = list({folder.resolve(): folder for run in runs for folder in find_runs(run)[0]}.values())
    if len(folders) < 2:
        raise MsekitError("averaging takes two runs or more", where=", ".join(map(str, folders)))
    refuse_several(read_spec_of(folders[0]), "averaging")
    if split not in ("train", "valid", "test"):
        raise MsekitError(f"no such split '{split}'", fix="Known: train, valid, test.")
    seeds = [_agreeing(folder, folders[0]) for folder in folders]
    reporter = reporter or Reporter()
    with nullcontext() if output is None else held_for_training(output, resume=False):
        return _averaged(folders, seeds, output, split, source, reporter)


def _averaged(
    folders: list[Path], seeds: list[int], output: Path | None, split: str, source: Path | None, reporter: Reporter
) -> Averaging:
    """Average and compare; the caller holds the output folder."""
    _, config, parts = open_run(folders[0], (split,), source=source, reporter=reporter)
    key = parts.spec.key_metric
    members = [_member(folder, seed, key) for folder, seed in zip(folders, seeds, strict=True)]
    averaged = {
        name: torch.stack([member.tensors[name].double() for member in members]).mean(dim=0).float()
        for name in members[0].tensors
    }
    scores = [_scores(parts, member.tensors, config, split, reporter, f"seed {member.seed}") for member in members]
    average = _scores(parts, averaged, config, split, reporter, "average")
    ensemble = Scores(
        ensemble_edges(parts.labels, [seed_scores.edges for seed_scores in scores]), scores[0].truths, parts.labels
    )
    estimate = config.evaluation.estimate
    if output is not None:
        _write(output, folders[0], averaged, [member.seed for member in members])
    named = [
        {"run": str(member.folder), "seed": member.seed, "metrics": seed_scores.metrics(parts.spec, estimate)}
        for member, seed_scores in zip(members, scores, strict=True)
    ]
    return {
        "split": split,
        "samples": len(average.truths),
        "estimate": estimate,
        "key_metric": key,
        "runs": named,
        "best": named[_best(members, key)],
        "average": average.metrics(parts.spec, estimate),
        "ensemble": ensemble.metrics(parts.spec, estimate),
        "collapsed_to": average.collapsed(estimate),
    }


def ensemble_edges(labels: LabelSpace, edges_of_each: Sequence[np.ndarray]) -> np.ndarray:
    """The average of several distributions over labels, as log-probabilities of the trie's edges.

    Args:
        labels: The label space.
        edges_of_each: (N, E) of each member.

    Returns:
        (N, E): each edge's mass given its parent's, so that every point estimate applies.
    """
    share_NK = np.mean([labels.distribution(edges_NE) for edges_NE in edges_of_each], axis=0)
    mass_NE = share_NK @ labels.trie.paths.astype(np.float64)
    whole_N = np.ones(len(mass_NE))
    above_NE = np.stack([mass_NE[:, parent - 1] if parent else whole_N for parent in labels.trie.parent], axis=1)
    tiny = np.finfo(np.float64).tiny
    return np.log(np.maximum(mass_NE, tiny)) - np.log(np.maximum(above_NE, tiny))


def _agreeing(folder: Path, first: Path) -> int:
    """A run's seed, where all else is as in the first run."""
    mine, other = read_description(folder), read_description(first)
    values, other_values = (run.model_dump() | {"dataset": without_places(run.dataset)} for run in (mine, other))
    for key in _ALIKE:
        if values[key] != other_values[key]:
            raise MsekitError(f"the runs differ in {key}", where=f"{first} and {folder}")
    own, its = (flatten(settings_of(read_config(path))) for path in (folder, first))
    apart = [key for key in own.keys() | its.keys() if key != "seed" and own.get(key) != its.get(key)]
    if apart:
        raise MsekitError(f"the runs differ in {', '.join(sorted(apart))}", where=f"{first} and {folder}")
    if mine.seed is None:
        raise MsekitError("the run was not trained from a seed, so it has none to average", where=folder)
    return mine.seed


def _member(folder: Path, seed: int, key: str) -> Member:
    tensors, _ = read_tensors(folder / ADAPTER)
    where = folder / METRICS
    try:
        values = [epoch["valid"][key] for epoch in read_json_lines(where) if epoch["valid"][key] is not None]
    except (KeyError, TypeError) as error:
        raise MsekitError(f"the file is damaged: {reason(error)}", where=where) from error
    better = max if higher_is_better(key) else min
    return Member(folder, seed, tensors, better(values) if values else None)


def _best(members: Sequence[Member], key: str) -> int:
    sign = 1 if higher_is_better(key) else -1
    return max(
        range(len(members)),
        key=lambda i: -np.inf if members[i].validation is None else sign * members[i].validation,  # type: ignore[operator]
    )


def _scores(
    parts: Parts, tensors: dict[str, Tensor], config: RunConfig, split: str, reporter: Reporter, title: str
) -> Scores:
    load_adapter(parts.model.adapter, tensors, title)
    accelerator = accelerator_for(parts.backbone.device)
    return score_split(parts.model, parts.collators[split], parts.evaluation_batch, accelerator, reporter, title)


def _write(output: Path, first: Path, tensors: dict[str, Tensor], seeds: list[int]) -> None:
    """A run folder that evaluate, predict and export read like any other."""
    write_tensors(output / ADAPTER, tensors)
    write_description(output, read_description(first).model_copy(update={"kind": "averaged", "averaged_seeds": seeds}))
    write_config(read_config(first).model_copy(update={"output": output}))
