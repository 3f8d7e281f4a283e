"""Runs → mean ± standard deviation over seeds, beside the paper's row.

    report.json of every seed → groups of comparable runs → Markdown, JSON or a terminal table

Runs are comparable when everything in `COMPARABLE` agrees; what else should agree between seeds and does not is
said in the group's warnings.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msekit.evaluation.units import fraction
from msekit.paper import paper_row
from msekit.runs.report import COMPARABLE, NAMES_A_RUN, SETS_IT_APART, RunReport, scalars

UNLIKE_THE_PAPER = ("without", "limit_train", "ablate")
"""Keys that, when set, make a run another experiment than the paper's."""
FINGERPRINTS = ("data_fingerprint", "backbone_fingerprint", "prompt_sha256")
PER_SEED_SETTINGS = ("seed", "seeds", "output", "resume")
"""Keys of the resolved configuration that may differ between the seeds of a group."""
OF_THE_MACHINE = ("evaluation.batch_size", "model.checkpointing", "tracking.trackers", "tracking.project")
"""Others that may, for each machine decides them by its memory: they change no number."""


@dataclass(frozen=True)
class MetricSummary:
    """One metric over the seeds of a group. Fractions, label units for `mae`."""

    mean: float | None
    """Over the seeds in which the metric is defined; None when it is in none."""
    std: float | None
    """Sample standard deviation (n - 1) over seeds; None for fewer than two."""
    seeds: int
    """Seeds in which the metric is defined."""
    confidence: list[float] | None
    """One seed only: the run's own 95 % interval over test samples."""
    paper: float | None
    difference: float | None
    """mean - paper."""
    shuffled: float | None = None
    """Mean over seeds with audio and vision shuffled between samples; None where that was not tested."""


@dataclass(frozen=True)
class Group:
    """Comparable runs, summarised."""

    values: dict[str, Any]
    """The `COMPARABLE` keys that the reports have."""
    seeds: list[int]
    metrics: dict[str, MetricSummary]
    warnings: list[str]
    members: list[RunReport]
    """The runs, by seed."""

    @property
    def title(self) -> str:
        """One line that names the group."""
        report = self.members[0].report
        apart = {name: value for name in SETS_IT_APART if (value := report.unusual(name))}
        extras = [f"{name} {', '.join(value) if isinstance(value, list) else value}" for name, value in apart.items()]
        named = [str(getattr(report, name)) for name in NAMES_A_RUN]
        return " · ".join([*named, f"{report.estimate} estimate", report.split, *extras])


def aggregate(reports: Sequence[RunReport]) -> list[Group]:
    """Group comparable runs and summarise each metric over their seeds.

    Args:
        reports: What `collect` read.

    Returns:
        The groups, in the order of their first run. The paper's values stand beside test results of the pairs
        that the paper reports; tables of values (`per_class_f1`) are left out.
    """
    grouped: dict[tuple[str, ...], list[RunReport]] = {}
    for report in reports:
        grouped.setdefault(report.key, []).append(report)
    return [_summarise(sorted(members, key=lambda report: report.seed)) for members in grouped.values()]


def _summarise(members: list[RunReport]) -> Group:
    """The group of runs that share a key, sorted by seed."""
    first = members[0].report
    published: dict[str, float] = {}
    if first.split == "test" and not any(getattr(first, name) for name in UNLIKE_THE_PAPER):
        printed = paper_row(first.backbone, first.dataset, first.adapter)
        published = {name: fraction(name, value) for name, value in printed.items()}
    names = [name for member in members for name in member.report.scalars]
    metrics = {}
    for name in dict.fromkeys(names):
        values = [value for member in members if (value := member.report.scalars.get(name)) is not None]
        mean = statistics.fmean(values) if values else None
        checks = [member.report.integrity for member in members]
        shuffled = [value for check in checks if check and (value := scalars(check.metrics).get(name)) is not None]
        paper = published.get(name)
        metrics[name] = MetricSummary(
            mean=mean,
            std=statistics.stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            confidence=(first.confidence or {}).get(name) if len(members) == 1 else None,
            paper=paper,
            difference=None if mean is None or paper is None else mean - paper,
            shuffled=statistics.fmean(shuffled) if shuffled else None,
        )
    shared = {name: value for name, value in members[0].values.items() if name in COMPARABLE}
    return Group(shared, [member.seed for member in members], metrics, _warnings(members), members)


def _warnings(members: list[RunReport]) -> list[str]:
    """What makes the seeds of a group less comparable than their key says, a line each."""
    lines = []
    for name in FINGERPRINTS:
        seen = {getattr(member.report, name) for member in members} - {None}
        if len(seen) > 1:
            lines.append(f"the seeds were run with {len(seen)} different values of {name}")
    seeds = [member.seed for member in members]
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        lines.append(f"seed {seed} occurs {seeds.count(seed)} times: these runs are not independent")
    configured = [member.settings for member in members if member.settings]
    for key in sorted({key for settings in configured for key in settings}):
        seen = {json.dumps(settings.get(key), default=str) for settings in configured}
        if len(seen) > 1 and key not in OF_THE_MACHINE and key.rsplit(".", 1)[-1] not in PER_SEED_SETTINGS:
            lines.append(f"the seeds were run with different {key}: {', '.join(sorted(seen))}")
    for member in members:
        if (label := member.report.collapsed_to) is not None:
            lines.append(f"seed {member.seed} answers '{label}' to every sample")
        elif (said := member.report.few_classes) is not None:
            lines.append(f"seed {member.seed}: {said}")
    return lines
