"""Runs → mean ± standard deviation over seeds, beside the paper's row.

    report.json of every seed → groups of comparable runs → Markdown, JSON or a terminal table

Runs are comparable when everything in `GROUP_KEYS` agrees; what else should agree between seeds and does not is
said in the group's warnings.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from msekit.errors import MsekitError
from msekit.paper import paper_row
from msekit.training.run_folder import REPORT

if TYPE_CHECKING:
    from rich.console import Console

REQUIRED_KEYS = ("dataset", "backbone", "adapter", "recipe", "estimate", "split", "seed", "metrics")
GROUP_KEYS = (
    *("dataset", "backbone", "adapter", "recipe", "estimate", "split"),
    *("without", "limit_train", "quantization", "ablate", "layout", "context", "on_missing", "modality_dropout"),
    "options",
)
"""The second and third line's keys count where a report has them, and not its default there."""
DEFAULTS = {"quantization": "none", "layout": "paper", "on_missing": "zero"}
UNLIKE_THE_PAPER = ("without", "limit_train", "ablate")
"""Keys that, when set, make a run another experiment than the paper's."""
FINGERPRINTS = ("data_fingerprint", "backbone_fingerprint", "prompt_sha256")
PER_SEED_SETTINGS = ("seed", "seeds", "output", "resume")
"""Keys of the resolved configuration that may differ between the seeds of a group."""
UNSCALED = ("mae", "corr")
"""Metrics shown as they are, with three decimals; all others in percent with two."""


@dataclass(frozen=True)
class RunReport:
    """One finished run: its folder, the content of its report.json, and its resolved configuration if it is there."""

    path: Path
    values: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted key → value of config.yaml."""

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.values["seed"])

    @property
    def key(self) -> tuple[str, ...]:
        """What runs must share to be averaged, as text."""
        return tuple(json.dumps(_unusual(name, self.values.get(name))) for name in GROUP_KEYS)


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
    """The `GROUP_KEYS` that the reports have."""
    seeds: list[int]
    metrics: dict[str, MetricSummary]
    warnings: list[str]
    members: list[RunReport]
    """The runs, by seed."""

    @property
    def title(self) -> str:
        """One line that names the group."""
        extras = [
            f"{name} {', '.join(value) if isinstance(value, list) else value}"
            for name, value in ((name, self.values.get(name)) for name in GROUP_KEYS[6:])
            if _unusual(name, value)
        ]
        first = [str(self.values[name]) for name in GROUP_KEYS[:4]]
        return " · ".join([*first, f"{self.values['estimate']} estimate", str(self.values["split"]), *extras])


def _unusual(name: str, value: Any) -> Any:
    """A key's value, None where it is empty or the default."""
    return None if value == DEFAULTS.get(name) else value or None


def find_runs(path: Path) -> tuple[list[Path], list[Path]]:
    """The run folders that a path stands for: itself, or the `seed-*` folders in it.

    Returns:
        The finished ones (they hold a report.json) and the unfinished ones.

    Raises:
        MsekitError: There is no such folder, or no finished run in it.
    """
    if not path.is_dir():
        raise MsekitError("no such run folder", where=path)
    if (path / REPORT).is_file():
        return [path], []
    folders = sorted(folder for folder in path.glob("seed-*") if folder.is_dir())
    finished = [folder for folder in folders if (folder / REPORT).is_file()]
    if not finished:
        state = f"{len(folders)} seed folder(s), none finished" if folders else "no report.json and no seed-* folders"
        raise MsekitError(
            f"no finished run here: {state}", where=path, fix="A run ends with `msekit train … --resume`."
        )
    return finished, [folder for folder in folders if folder not in finished]


def collect(runs: Sequence[Path]) -> list[RunReport]:
    """Read the reports of run folders; a folder that is named twice counts once.

    Args:
        runs: A seed's folder or a folder that holds `seed-*` folders, each.

    Raises:
        MsekitError: A folder holds no finished run, or a report is unreadable or incomplete.
    """
    folders = {folder.resolve(): folder for path in runs for folder in find_runs(Path(path))[0]}
    return [_read(folder) for folder in folders.values()]


def _read(folder: Path) -> RunReport:
    """One folder's report, checked for the keys that are needed here."""
    file = folder / REPORT
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MsekitError(f"the report cannot be read: {error}", where=file) from error
    missing = [key for key in REQUIRED_KEYS if not isinstance(values, dict) or key not in values]
    if missing or not isinstance(values["metrics"], dict):
        raise MsekitError(
            f"the report has no '{missing[0] if missing else 'metrics'}'", where=file, fix="Evaluate the run again."
        )
    config = folder / "config.yaml"
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MsekitError(f"the run's configuration cannot be read: {error}", where=config) from error
    return RunReport(folder, values, flatten(settings))


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings → dotted keys."""
    if not isinstance(settings, dict):
        return {prefix: settings} if prefix else {}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


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
    first = members[0].values
    published: dict[str, float] = {}
    if first["split"] == "test" and not any(first.get(name) for name in UNLIKE_THE_PAPER):
        published = paper_row(str(first["backbone"]), str(first["dataset"]), str(first["adapter"]))
    names = [
        name for member in members for name, value in member.values["metrics"].items() if not isinstance(value, dict)
    ]
    metrics = {}
    for name in dict.fromkeys(names):
        found = [member.values["metrics"].get(name) for member in members]
        values = [float(value) for value in found if value is not None]
        mean = statistics.fmean(values) if values else None
        checks = [((member.values.get("integrity") or {}).get("metrics") or {}).get(name) for member in members]
        shuffled = [float(value) for value in checks if value is not None]
        paper = published.get(name)
        metrics[name] = MetricSummary(
            mean=mean,
            std=statistics.stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            confidence=(first.get("confidence") or {}).get(name) if len(members) == 1 else None,
            paper=paper,
            difference=None if mean is None or paper is None else mean - paper,
            shuffled=statistics.fmean(shuffled) if shuffled else None,
        )
    shared = {name: first[name] for name in GROUP_KEYS if name in first}
    return Group(shared, [member.seed for member in members], metrics, _warnings(members), members)


def _warnings(members: list[RunReport]) -> list[str]:
    """What makes the seeds of a group less comparable than their key says, a line each."""
    lines = []
    for name in FINGERPRINTS:
        seen = {member.values[name] for member in members if member.values.get(name) is not None}
        if len(seen) > 1:
            lines.append(f"the seeds were run with {len(seen)} different values of {name}")
    seeds = [member.seed for member in members]
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        lines.append(f"seed {seed} occurs {seeds.count(seed)} times: these runs are not independent")
    configured = [member.settings for member in members if member.settings]
    for key in sorted({key for settings in configured for key in settings}):
        seen = {json.dumps(settings.get(key), default=str) for settings in configured}
        if len(seen) > 1 and key.rsplit(".", 1)[-1] not in PER_SEED_SETTINGS:
            lines.append(f"the seeds were run with different {key}: {', '.join(sorted(seen))}")
    for member in members:
        if member.values.get("collapsed_to") is not None:
            lines.append(f"seed {member.seed} answers '{member.values['collapsed_to']}' to every sample")
    return lines


def show(metric: str, value: float | None, signed: bool = False) -> str:
    """A metric's value as tables show it: percent with two decimals, or three decimals for `mae` and `corr`."""
    if value is None:
        return "undefined"
    scale, digits = (1.0, 3) if metric in UNSCALED else (100.0, 2)
    return f"{value * scale:{'+' if signed else ''}.{digits}f}"


HEADINGS = ("metric", "value", "paper", "difference", "shuffled")


def cells(metric: str, summary: MetricSummary, seeds: int) -> tuple[str, ...]:
    """A metric's line of a table, in the order of HEADINGS; the value with its spread."""
    value = show(metric, summary.mean)
    if summary.std is not None:
        value += f" ± {show(metric, summary.std)}"
    elif summary.mean is not None and summary.confidence is not None:
        value += f" [{', '.join(show(metric, bound) for bound in summary.confidence)}]"
    if 0 < summary.seeds < seeds:
        value += f" (defined in {summary.seeds} of {seeds})"
    paper = "" if summary.paper is None else show(metric, summary.paper)
    difference = "" if summary.difference is None else show(metric, summary.difference, signed=True)
    shuffled = "" if summary.shuffled is None else show(metric, summary.shuffled)
    return metric, value, paper, difference, shuffled


def seeds_line(group: Group) -> str:
    """How many seeds, which, and what stands beside the values."""
    count = len(group.seeds)
    beside = "mean ± standard deviation" if count > 1 else "[95 % interval over the samples]"
    return f"{count} seed{'s' if count > 1 else ''} ({', '.join(map(str, group.seeds))}): {beside}"


def render_json(groups: Sequence[Group]) -> str:
    """One JSON document: a list of groups, their metrics as fractions."""
    document = [
        {
            **group.values,
            "seeds": group.seeds,
            "n": len(group.seeds),
            "metrics": {name: asdict(summary) for name, summary in group.metrics.items()},
            "warnings": group.warnings,
        }
        for group in groups
    ]
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def render_markdown(groups: Sequence[Group]) -> str:
    """A heading, a table and the warnings of every group; accuracies and F1 in percent."""
    parts = []
    for group in groups:
        lines = [f"### {group.title}", "", seeds_line(group), "", f"| {' | '.join(HEADINGS)} |"]
        lines.append("|---|---:|---:|---:|---:|")
        lines += [
            f"| {' | '.join(cells(name, summary, len(group.seeds)))} |" for name, summary in group.metrics.items()
        ]
        if group.warnings:
            lines += ["", *(f"- **Warning:** {warning}" for warning in group.warnings)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def render_table(groups: Sequence[Group], console: Console) -> None:
    """Draw every group as a rich table on the console."""
    from rich.markup import escape
    from rich.table import Table

    for group in groups:
        table = Table(title=escape(group.title), caption=escape(seeds_line(group)))
        table.add_column("metric")
        for heading in HEADINGS[1:]:
            table.add_column(heading, justify="right")
        for name, summary in group.metrics.items():
            table.add_row(*(escape(cell) for cell in cells(name, summary, len(group.seeds))))
        console.print(table)
        for warning in group.warnings:
            console.print(f"[yellow]Warning:[/yellow] {escape(warning)}")
